package pods

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ainode/ainode/nodeagent/internal/cri"
	"github.com/ainode/ainode/nodeagent/internal/crispec"
	"github.com/ainode/ainode/nodeagent/internal/podstatus"
	"github.com/ainode/ainode/nodeagent/internal/probes"
)

// view is all that the next step is decided from.
type view struct {
	pod *corev1.Pod
	// stop says that nothing of the pod may run: it is deleted, refused, past its
	// deadline, or in a terminal phase.
	stop bool
	// refused are the ephemeral containers that may not run.
	refused map[string]bool
	// ownAddress says that the pod has an address that is not the node's.
	ownAddress bool
	// actual is what the runtime holds.
	actual *cri.Pod
	// crashes is the remembered back-off by container name.
	crashes map[string]crash
	// probes are probe results by container id; no entry counts as started.
	probes map[string]podstatus.Probed
	// failed are the containers whose startup or liveness probe has failed, by id.
	failed map[string]probes.Failure
	// resized are the containers that must be restarted for new resources, by id.
	resized map[string]bool
	now     time.Time
}

// killing is a container to be ended, and why (empty: the pod ends).
type killing struct {
	id, name, message string
	// grace is the container's own in seconds, nil for the pod's.
	grace *int64
}

// starting is a container to be started.
type starting struct {
	name    string
	attempt uint32
	// resume is the id of a container that is made but was never started.
	resume string
	// crash is what to remember once it is started.
	crash *crash
}

// plan is the next step. Killing comes first; while there is something to kill,
// nothing is started.
type plan struct {
	kill []killing
	// sandbox asks for a new sandbox, numbered attempt.
	sandbox bool
	attempt uint32
	start   []starting
	// waiting is why containers are not started yet, by name.
	waiting map[string]podstatus.Waiting
	// again is when to look again although nothing may happen; zero: no need.
	again time.Time
	// pruneContainers and pruneSandboxes are dead and no longer needed.
	pruneContainers, pruneSandboxes []string
	// ended says that nothing runs and nothing will: what the pod held is free.
	ended bool
}

// next decides the next step.
func next(v view) plan {
	p := &planner{view: v, byName: map[string][]*runtimeapi.ContainerStatus{}}
	for _, c := range v.actual.Containers {
		name := c.GetMetadata().GetName()
		p.byName[name] = append(p.byName[name], c)
	}
	p.plan.waiting = map[string]podstatus.Waiting{}
	p.decide()
	if !v.stop {
		p.prune()
	}
	return p.plan
}

type planner struct {
	view
	byName map[string][]*runtimeapi.ContainerStatus
	plan   plan
}

func (p *planner) decide() {
	if p.stop {
		p.killAll()
		p.plan.ended = len(p.plan.kill) == 0
		return
	}
	if p.newest() != nil && !p.sandboxReady() {
		for _, c := range p.actual.Containers {
			p.killIfLive(c, "Pod sandbox changed, it will be killed and re-created.")
		}
		if len(p.plan.kill) > 0 {
			return
		}
	}
	if p.finished() {
		p.killAll() // sidecars
		p.plan.ended = len(p.plan.kill) == 0
		return
	}
	if p.initContainers() {
		for i := range p.pod.Spec.Containers {
			p.appContainer(&p.pod.Spec.Containers[i])
		}
	}
	for i := range p.pod.Spec.EphemeralContainers {
		// Also while init containers run: one that hangs is what is to be debugged.
		p.ephemeral(p.pod.Spec.EphemeralContainers[i].Name)
	}
	if len(p.plan.kill) > 0 {
		p.plan.start = nil
	}
	if len(p.plan.start) > 0 && !p.sandboxReady() {
		p.plan.sandbox = true
		for _, s := range p.actual.Sandboxes {
			p.plan.attempt = max(p.plan.attempt, s.GetMetadata().GetAttempt()+1)
		}
	}
}

func (p *planner) newest() *runtimeapi.PodSandbox {
	if len(p.actual.Sandboxes) == 0 {
		return nil
	}
	return p.actual.Sandboxes[0]
}

// sandboxReady is false too for a sandbox whose network has gone: the runtime knows
// no address of it then.
func (p *planner) sandboxReady() bool {
	s := p.newest()
	return s != nil && s.State == runtimeapi.PodSandboxState_SANDBOX_READY &&
		(!p.ownAddress || p.actual.SandboxStatus.GetNetwork().GetIp() != "")
}

// live reports whether the container may have a process.
func live(c *runtimeapi.ContainerStatus) bool {
	return c.State == runtimeapi.ContainerState_CONTAINER_RUNNING || c.State == runtimeapi.ContainerState_CONTAINER_UNKNOWN
}

func (p *planner) killIfLive(c *runtimeapi.ContainerStatus, message string) {
	if live(c) {
		p.plan.kill = append(p.plan.kill, killing{id: c.Id, name: c.GetMetadata().GetName(), message: message})
	}
}

// killAll ends app containers together, and then sidecars one by one, the last first.
func (p *planner) killAll() {
	sidecars := map[string]bool{}
	for i := range p.pod.Spec.InitContainers {
		if isSidecar(&p.pod.Spec.InitContainers[i]) {
			sidecars[p.pod.Spec.InitContainers[i].Name] = true
		}
	}
	for _, c := range p.actual.Containers {
		if !sidecars[c.GetMetadata().GetName()] {
			p.killIfLive(c, "")
		}
	}
	for i := len(p.pod.Spec.InitContainers) - 1; i >= 0 && len(p.plan.kill) == 0; i-- {
		if name := p.pod.Spec.InitContainers[i].Name; sidecars[name] {
			for _, c := range p.byName[name] {
				p.killIfLive(c, "")
			}
		}
	}
}

// finished reports whether the pod's work is over by its restart policy.
func (p *planner) finished() bool {
	for i := range p.pod.Spec.InitContainers {
		c := &p.pod.Spec.InitContainers[i]
		if last := p.last(c.Name); !isSidecar(c) && exited(last) && last.ExitCode != 0 &&
			!podstatus.Restarts(&p.pod.Spec, c, last.ExitCode) {
			return true
		}
	}
	for i := range p.pod.Spec.Containers {
		c := &p.pod.Spec.Containers[i]
		if last := p.last(c.Name); !exited(last) || p.restarts(c, last) {
			return false
		}
	}
	return true
}

// restarts reports whether the container is to be started again that has ended: by
// its policy, or because it was ended for that.
func (p *planner) restarts(c *corev1.Container, last *runtimeapi.ContainerStatus) bool {
	_, failed := p.failed[last.Id]
	return podstatus.Restarts(&p.pod.Spec, c, last.ExitCode) || (failed || p.resized[last.Id]) && p.restartsFailed(c)
}

// restartsFailed reports whether the container is started again when its probe fails.
func (p *planner) restartsFailed(c *corev1.Container) bool {
	return podstatus.Restarts(&p.pod.Spec, c, exitKilled)
}

// exitKilled is the exit code of a process that was killed: no policy but Never
// takes it for a success.
const exitKilled = 137

// killIfFailed ends the container if its startup or liveness probe has failed, or it
// must be restarted for new resources.
func (p *planner) killIfFailed(c *corev1.Container, last *runtimeapi.ContainerStatus) {
	if p.resized[last.Id] {
		p.killIfLive(last, fmt.Sprintf("Container %s resize requires restart", c.Name))
		return
	}
	failure, failed := p.failed[last.Id]
	if !failed {
		return
	}
	message := fmt.Sprintf("Container %s failed %s probe", c.Name, strings.ToLower(string(failure.Kind)))
	if p.restartsFailed(c) {
		message += ", will be restarted"
	}
	p.plan.kill = append(p.plan.kill, killing{id: last.Id, name: c.Name, message: message, grace: failure.Grace})
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
	for i := range p.pod.Spec.InitContainers {
		c := &p.pod.Spec.InitContainers[i]
		last := p.lastInSandbox(c.Name)
		switch {
		case isSidecar(c):
			if last != nil && last.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
				p.killIfFailed(c, last)
				if probed, ok := p.probes[last.Id]; !initialized && ok && !probed.Started {
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
	if last == nil || !p.sandboxReady() || p.actual.SandboxOf[last.Id] != p.newest().Id {
		return nil
	}
	return last
}

func (p *planner) appContainerInSandbox() bool {
	for i := range p.pod.Spec.Containers {
		if p.lastInSandbox(p.pod.Spec.Containers[i].Name) != nil {
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
		if p.restarts(c, last) || changed(c, last) && p.pod.Spec.RestartPolicy != corev1.RestartPolicyNever {
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
	if p.refused[name] || !p.sandboxReady() {
		return
	}
	switch last := p.last(name); {
	case last == nil:
		p.plan.start = append(p.plan.start, starting{name: name})
	case last.State == runtimeapi.ContainerState_CONTAINER_CREATED && p.lastInSandbox(name) != nil: // the agent was killed then
		p.plan.start = append(p.plan.start, starting{name: name, attempt: last.GetMetadata().GetAttempt(), resume: last.Id})
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
		p.plan.start = append(p.plan.start, starting{name: c.Name})
		return
	}
	if live(last) {
		p.killUnknown(last) // never a second one beside it
		return
	}
	attempt := last.GetMetadata().GetAttempt()
	if last.State == runtimeapi.ContainerState_CONTAINER_CREATED && p.lastInSandbox(c.Name) != nil {
		p.plan.start = append(p.plan.start, starting{name: c.Name, attempt: attempt, resume: last.Id})
		return
	}
	if !exited(last) {
		p.plan.start = append(p.plan.start, starting{name: c.Name, attempt: attempt + 1})
		return
	}
	var known *crash
	if remembered, ok := p.crashes[c.Name]; ok {
		known = &remembered
	}
	until, delay, remember := crashBackOff(known, attempt, time.Unix(0, last.CreatedAt), time.Unix(0, last.FinishedAt))
	if until.After(p.now) {
		p.plan.waiting[c.Name] = podstatus.Waiting{
			Reason: podstatus.CrashLoopBackOff,
			Message: fmt.Sprintf("back-off %s restarting failed container=%s pod=%s_%s(%s)",
				delay, c.Name, p.pod.Name, p.pod.Namespace, p.pod.UID),
		}
		if p.plan.again.IsZero() || until.Before(p.plan.again) {
			p.plan.again = until
		}
		return
	}
	crash := remember(p.now)
	p.plan.start = append(p.plan.start, starting{name: c.Name, attempt: attempt + 1, crash: &crash})
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
				p.plan.pruneContainers = append(p.plan.pruneContainers, c.Id)
			} else {
				kept[p.actual.SandboxOf[c.Id]] = true
			}
		}
	}
	for _, s := range p.actual.Sandboxes {
		if !kept[s.Id] {
			p.plan.pruneSandboxes = append(p.plan.pruneSandboxes, s.Id)
		}
	}
}
