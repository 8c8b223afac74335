// Package pods runs the pods of one node. It is level-triggered: for each pod UID
// one worker compares what the API wants with what the runtime holds, takes the
// next step, and writes the status. What must survive a restart of the agent
// stands in the runtime's labels and annotations and in one small file per pod.
//
// What a worker decides and works by are rooms of their own: admission, gpuallocation,
// plan and backoff; checkpoint, podfiles, hooks, probes, podstatus and statuswriter.
package pods
