// Package plan decides what is to be done next with a pod, from what is wanted of it and
// what the runtime holds. It is pure: the pods room takes the step.
package plan

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ainode/ainode/nodeagent/internal/backoff"
	"github.com/ainode/ainode/nodeagent/internal/cri"
	"github.com/ainode/ainode/nodeagent/internal/crispec"
	"github.com/ainode/ainode/nodeagent/internal/podstatus"
	"github.com/ainode/ainode/nodeagent/internal/probes"
)

// View is all that the next step is decided from.
type View struct {
	Pod *corev1.Pod
	// Stop says that nothing of the pod may run: it is deleted, refused, past its
	// deadline, or in a terminal phase.
	Stop bool
	// Refused are the ephemeral containers that may not run.
	Refused map[string]bool
	// OwnAddress says that the pod has an address that is not the node's.
	OwnAddress bool
	// Actual is what the runtime holds.
	Actual *cri.Pod
	// Crashes is the remembered back-off by container name.
	Crashes map[string]backoff.Crash
	// Probes are probe results by container id; no entry counts as started.
	Probes map[string]podstatus.Probed
	// Failed are the containers whose startup or liveness probe has failed, by id.
	Failed map[string]probes.Failure
	// Resized are the containers that must be restarted for new resources, by id.
	Resized map[string]bool
	Now     time.Time
}

// Killing is a container to be ended, and why (empty: the pod ends).
type Killing struct {
	ID, Name, Message string
	// Grace is the container's own in seconds, nil for the pod's.
	Grace *int64
}

// Starting is a container to be started.
type Starting struct {
	Name    string
	Attempt uint32
	// Resume is the id of a container that is made but was never started.
	Resume string
	// Crash is what to remember once it is started.
	Crash *backoff.Crash
}

// Step is what is to be done next. Killing comes first; while there is something to kill,
// nothing is started.
type Step struct {
	Kill []Killing
	// Sandbox asks for a new sandbox, numbered Attempt.
	Sandbox bool
	Attempt uint32
	Start   []Starting
	// Waiting is why containers are not started yet, by name.
	Waiting map[string]podstatus.Waiting
	// Again is when to look again although nothing may happen; zero: no need.
	Again time.Time
	// PruneContainers and PruneSandboxes are dead and no longer needed.
	PruneContainers, PruneSandboxes []string
	// Ended says that nothing runs and nothing will: what the pod held is free.
	Ended bool
}

// Next decides the next step.
func Next(v View) Step {
	p := &planner{View: v, byName: map[string][]*runtimeapi.ContainerStatus{}}
	for _, c := range v.Actual.Containers {
		name := c.GetMetadata().GetName()
		p.byName[name] = append(p.byName[name], c)
	}
	p.step.Waiting = map[string]podstatus.Waiting{}
	p.decide()
	if !v.Stop {
		p.prune()
	}
	return p.step
}

type planner struct {
	View
	byName map[string][]*runtimeapi.ContainerStatus
	step   Step
}

func (p *planner) decide() {
	if p.Stop {
		p.killAll()
		p.step.Ended = len(p.step.Kill) == 0
		return
	}
	if p.newest() != nil && !p.sandboxReady() {
		for _, c := range p.Actual.Containers {
			p.killIfLive(c, "Pod sandbox changed, it will be killed and re-created.")
		}
		if len(p.step.Kill) > 0 {
			return
		}
	}
	if p.finished() {
		p.killAll() // sidecars
		p.step.Ended = len(p.step.Kill) == 0
		return
	}
	if p.initContainers() {
		for i := range p.Pod.Spec.Containers {
			p.appContainer(&p.Pod.Spec.Containers[i])
		}
	}
	for i := range p.Pod.Spec.EphemeralContainers {
		// Also while init containers run: one that hangs is what is to be debugged.
		p.ephemeral(p.Pod.Spec.EphemeralContainers[i].Name)
	}
	if len(p.step.Kill) > 0 {
		p.step.Start = nil
	}
	if len(p.step.Start) > 0 && !p.sandboxReady() {
		p.step.Sandbox = true
		for _, s := range p.Actual.Sandboxes {
			p.step.Attempt = max(p.step.Attempt, s.GetMetadata().GetAttempt()+1)
		}
	}
}

func (p *planner) newest() *runtimeapi.PodSandbox {
	if len(p.Actual.Sandboxes) == 0 {
		return nil
	}
	return p.Actual.Sandboxes[0]
}

// sandboxReady is false too for a sandbox whose network has gone: the runtime knows
// no address of it then.
func (p *planner) sandboxReady() bool {
	s := p.newest()
	return s != nil && s.State == runtimeapi.PodSandboxState_SANDBOX_READY &&
		(!p.OwnAddress || p.Actual.SandboxStatus.GetNetwork().GetIp() != "")
}

func (p *planner) killIfLive(c *runtimeapi.ContainerStatus, message string) {
	if cri.Live(c) {
		p.step.Kill = append(p.step.Kill, Killing{ID: c.Id, Name: c.GetMetadata().GetName(), Message: message})
	}
}

// killAll ends app containers together, and then sidecars one by one, the last first.
func (p *planner) killAll() {
	sidecars := map[string]bool{}
	for i := range p.Pod.Spec.InitContainers {
		if crispec.Sidecar(&p.Pod.Spec.InitContainers[i]) {
			sidecars[p.Pod.Spec.InitContainers[i].Name] = true
		}
	}
	for _, c := range p.Actual.Containers {
		if !sidecars[c.GetMetadata().GetName()] {
			p.killIfLive(c, "")
		}
	}
	for i := len(p.Pod.Spec.InitContainers) - 1; i >= 0 && len(p.step.Kill) == 0; i-- {
		if name := p.Pod.Spec.InitContainers[i].Name; sidecars[name] {
			for _, c := range p.byName[name] {
				p.killIfLive(c, "")
			}
		}
	}
}

// finished reports whether the pod's work is over by its restart policy.
func (p *planner) finished() bool {
	for i := range p.Pod.Spec.InitContainers {
		c := &p.Pod.Spec.InitContainers[i]
		if last := p.last(c.Name); !crispec.Sidecar(c) && exited(last) && last.ExitCode != 0 &&
			!podstatus.Restarts(&p.Pod.Spec, c, last.ExitCode) {
			return true
		}
	}
	for i := range p.Pod.Spec.Containers {
		c := &p.Pod.Spec.Containers[i]
		if last := p.last(c.Name); !exited(last) || p.restarts(c, last) {
			return false
		}
	}
	return true
}

// restarts reports whether the container is to be started again that has ended: by
// its policy, or because it was ended for that.
func (p *planner) restarts(c *corev1.Container, last *runtimeapi.ContainerStatus) bool {
	_, failed := p.Failed[last.Id]
	return podstatus.Restarts(&p.Pod.Spec, c, last.ExitCode) || (failed || p.Resized[last.Id]) && p.restartsFailed(c)
}

// restartsFailed reports whether the container is started again when its probe fails.
func (p *planner) restartsFailed(c *corev1.Container) bool {
	return podstatus.Restarts(&p.Pod.Spec, c, exitKilled)
}

// exitKilled is the exit code of a process that was killed: no policy but Never
// takes it for a success.
const exitKilled = 137

// killIfFailed ends the container if its startup or liveness probe has failed, or it
// must be restarted for new resources.
func (p *planner) killIfFailed(c *corev1.Container, last *runtimeapi.ContainerStatus) {
	if p.Resized[last.Id] {
		p.killIfLive(last, fmt.Sprintf("Container %s resize requires restart", c.Name))
		return
	}
	failure, failed := p.Failed[last.Id]
	if !failed {
		return
	}
	message := fmt.Sprintf("Container %s failed %s probe", c.Name, strings.ToLower(string(failure.Kind)))
	if p.restartsFailed(c) {
		message += ", will be restarted"
	}
	p.step.Kill = append(p.step.Kill, Killing{ID: last.Id, Name: c.Name, Message: message, Grace: failure.Grace})
}

func (p *planner) last(name string) *runtimeapi.ContainerStatus {
	if known := p.byName[name]; len(known) > 0 {
		return known[0]
	}
	return nil
}

func exited(c *runtimeapi.ContainerStatus) bool {
	return c != nil && c.State == runtimeapi.ContainerState_CONTAINER_EXITED
}

// initContainers plans the next init container and reports whether the app
// containers may start.
func (p *planner) initContainers() bool {
	initialized := p.appContainerInSandbox()
	for i := range p.Pod.Spec.InitContainers {
		c := &p.Pod.Spec.InitContainers[i]
		last := p.lastInSandbox(c.Name)
		switch {
		case crispec.Sidecar(c):
			if last != nil && last.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
				p.killIfFailed(c, last)
				if probed, ok := p.Probes[last.Id]; !initialized && ok && !probed.Started {
					return false
				}
				continue
			}
			p.restart(c, p.last(c.Name))
			if !initialized {
				return false
			}
		case initialized:
		case last == nil:
			p.restart(c, p.last(c.Name))
			return false
		case exited(last) && last.ExitCode == 0:
		case exited(last), last.State == runtimeapi.ContainerState_CONTAINER_CREATED:
			p.restart(c, last)
			return false
		default:
			p.killUnknown(last)
			return false
		}
	}
	return true
}

// lastInSandbox is the newest container of that name in the current sandbox: a
// new sandbox initializes anew.
func (p *planner) lastInSandbox(name string) *runtimeapi.ContainerStatus {
	last := p.last(name)
	if last == nil || !p.sandboxReady() || p.Actual.SandboxOf[last.Id] != p.newest().Id {
		return nil
	}
	return last
}

func (p *planner) appContainerInSandbox() bool {
	for i := range p.Pod.Spec.Containers {
		if p.lastInSandbox(p.Pod.Spec.Containers[i].Name) != nil {
			return true
		}
	}
	return false
}

func (p *planner) appContainer(c *corev1.Container) {
	last := p.last(c.Name)
	switch {
	case last == nil, last.State == runtimeapi.ContainerState_CONTAINER_CREATED:
		p.restart(c, last)
	case last.State == runtimeapi.ContainerState_CONTAINER_RUNNING:
		if changed(c, last) {
			p.killIfLive(last, fmt.Sprintf("Container %s definition changed, will be restarted", c.Name))
			return
		}
		p.killIfFailed(c, last)
	case exited(last):
		if p.restarts(c, last) || changed(c, last) && p.Pod.Spec.RestartPolicy != corev1.RestartPolicyNever {
			p.restart(c, last)
		}
	default:
		p.killUnknown(last)
	}
}

// changed reports whether the container was made from another definition.
func changed(c *corev1.Container, made *runtimeapi.ContainerStatus) bool {
	hash := made.Annotations[crispec.AnnotationSpecHash]
	return hash != "" && hash != crispec.SpecHash(c)
}

func (p *planner) ephemeral(name string) {
	if p.Refused[name] || !p.sandboxReady() {
		return
	}
	switch last := p.last(name); {
	case last == nil:
		p.step.Start = append(p.step.Start, Starting{Name: name})
	case last.State == runtimeapi.ContainerState_CONTAINER_CREATED && p.lastInSandbox(name) != nil: // the agent was killed then
		p.step.Start = append(p.step.Start, Starting{Name: name, Attempt: last.GetMetadata().GetAttempt(), Resume: last.Id})
	}
}

func (p *planner) killUnknown(c *runtimeapi.ContainerStatus) {
	if c.State == runtimeapi.ContainerState_CONTAINER_UNKNOWN {
		p.killIfLive(c, fmt.Sprintf("Container %s is in unknown state, try killing it before restart", c.GetMetadata().GetName()))
	}
}

// restart starts the container now, or says when its back-off is over.
func (p *planner) restart(c *corev1.Container, last *runtimeapi.ContainerStatus) {
	if last == nil {
		p.step.Start = append(p.step.Start, Starting{Name: c.Name})
		return
	}
	if cri.Live(last) {
		p.killUnknown(last) // never a second one beside it
		return
	}
	attempt := last.GetMetadata().GetAttempt()
	if last.State == runtimeapi.ContainerState_CONTAINER_CREATED && p.lastInSandbox(c.Name) != nil {
		p.step.Start = append(p.step.Start, Starting{Name: c.Name, Attempt: attempt, Resume: last.Id})
		return
	}
	if !exited(last) {
		p.step.Start = append(p.step.Start, Starting{Name: c.Name, Attempt: attempt + 1})
		return
	}
	var known *backoff.Crash
	if remembered, ok := p.Crashes[c.Name]; ok {
		known = &remembered
	}
	until, delay, remember := backoff.AfterCrash(known, attempt, time.Unix(0, last.CreatedAt), time.Unix(0, last.FinishedAt))
	if until.After(p.Now) {
		p.step.Waiting[c.Name] = podstatus.Waiting{
			Reason: podstatus.CrashLoopBackOff,
			Message: fmt.Sprintf("back-off %s restarting failed container=%s pod=%s_%s(%s)",
				delay, c.Name, p.Pod.Name, p.Pod.Namespace, p.Pod.UID),
		}
		if p.step.Again.IsZero() || until.Before(p.step.Again) {
			p.step.Again = until
		}
		return
	}
	crash := remember(p.Now)
	p.step.Start = append(p.step.Start, Starting{Name: c.Name, Attempt: attempt + 1, Crash: &crash})
}

// prune finds dead containers before the last dead one of each name, and dead
// sandboxes without containers.
func (p *planner) prune() {
	kept := map[string]bool{}
	if s := p.newest(); s != nil {
		kept[s.Id] = true
	}
	for _, known := range p.byName {
		dead := 0
		for i, c := range known {
			if i > 0 && exited(c) {
				dead++
			}
			if dead > 1 {
				p.step.PruneContainers = append(p.step.PruneContainers, c.Id)
			} else {
				kept[p.Actual.SandboxOf[c.Id]] = true
			}
		}
	}
	for _, s := range p.Actual.Sandboxes {
		if !kept[s.Id] {
			p.step.PruneSandboxes = append(p.step.PruneSandboxes, s.Id)
		}
	}
}
