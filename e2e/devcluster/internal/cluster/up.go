package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/ainode/ainode/e2e/devcluster/internal/build"
	"github.com/ainode/ainode/e2e/devcluster/internal/cgroup"
	"github.com/ainode/ainode/e2e/devcluster/internal/containerd"
	"github.com/ainode/ainode/e2e/devcluster/internal/controlplane"
	"github.com/ainode/ainode/e2e/devcluster/internal/image"
	"github.com/ainode/ainode/e2e/devcluster/internal/layout"
	"github.com/ainode/ainode/e2e/devcluster/internal/network"
	"github.com/ainode/ainode/e2e/devcluster/internal/node"
	"github.com/ainode/ainode/e2e/devcluster/internal/preflight"
	"github.com/ainode/ainode/e2e/devcluster/internal/progress"
	"github.com/ainode/ainode/e2e/devcluster/internal/registry"
	"github.com/ainode/ainode/e2e/devcluster/internal/room"
	"github.com/ainode/ainode/e2e/devcluster/internal/subnet"
)

// patience is how long one part may take to become ready on a busy machine.
const patience = 3 * time.Minute

// Up makes the cluster, or what is missing of it; kubernetes is a version that build
// knows.
func Up(l layout.Layout, machines int, kubernetes string, sources fs.FS, out *os.File) error {
	if machines < 0 || machines > subnet.MaxMachines {
		return fmt.Errorf("--machines %d: choose 0 to %d", machines, subnet.MaxMachines)
	}
	if state, err := readState(l); err == nil && state.Complete && state.Machines == machines {
		if status, err := Status(l); err == nil && status.Running {
			fmt.Fprintf(out, "already up: %s (KUBECONFIG=%s)\n", status.Server, status.Kubeconfig)
			return nil
		}
	}
	u := &up{l: l, builder: build.Builder{Layout: l, Sources: sources, Kubernetes: kubernetes}}
	missing, err := u.builder.Missing()
	if err != nil {
		return err
	}
	if err := check(l, len(missing) > 0, out); err != nil {
		return err
	}
	if err := claim(l); err != nil {
		return err
	}
	release, err := lock(l)
	if err != nil {
		return err
	}
	defer release()
	const phases = 4
	u.report = progress.New(out, len(missing)+phases)
	return u.run(machines, missing)
}

// check refuses early, or installs what the distribution has.
func check(l layout.Layout, needBuild bool, out io.Writer) error {
	facts := preflight.Gather(l.Dir, needBuild)
	problems := preflight.Judge(facts)
	if len(problems) == 1 && len(facts.Missing) > 0 && facts.AptGet {
		say := func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) }
		if err := preflight.Install(facts.Missing, say); err != nil {
			return fmt.Errorf("installing what is missing: %w\n%s", err, problems[0])
		}
		facts = preflight.Gather(l.Dir, needBuild)
		problems = preflight.Judge(facts)
	}
	if len(problems) == 0 {
		return nil
	}
	lines := make([]string, 0, len(problems))
	for _, problem := range problems {
		lines = append(lines, problem.String())
	}
	return errors.New("a cluster cannot run here; nothing was made\n" + strings.Join(lines, "\n"))
}

type up struct {
	l       layout.Layout
	builder build.Builder
	report  *progress.Reporter
	state   State
	holders map[string]int // room to pid
}

func (u *up) run(machines int, missing []build.Target) error {
	hierarchies, err := cgroup.Hierarchies()
	if err != nil {
		return err
	}
	if err := u.prepare(machines, hierarchies); err != nil {
		return err
	}
	// This command works in the cluster's cgroup, so that `down` finds it and its
	// builds too, and ends what is left of them if it was killed.
	back, err := u.joinCgroup(hierarchies)
	if err != nil {
		return err
	}
	defer back()
	for _, target := range missing {
		if err := u.step(target.Title, func(step *progress.Step) error { return u.builder.Build(target, step) }); err != nil {
			return err
		}
	}
	if err := u.copySelf(); err != nil {
		return err
	}
	started := time.Now()
	for _, phase := range []struct {
		title string
		do    func(*progress.Step) error
	}{
		{fmt.Sprintf("making the node, %d machine(s) and their networks", machines), u.makeRooms},
		{"starting etcd, the API server, containerd and the registry", u.startFirst},
		{"starting the controllers, the scheduler and the kubelet", u.startSecond},
		{"waiting for " + layout.NodeName + " to be ready", u.waitReady},
	} {
		if err := u.step(phase.title, phase.do); err != nil {
			return fmt.Errorf("%w\nlogs are in %s; `devcluster down --dir %s` takes away what was made", err, u.l.LogDir(), u.l.Dir)
		}
	}
	u.state.Complete = true
	if err := u.state.write(u.l); err != nil {
		return err
	}
	u.report.Line("up in %s: %s", time.Since(started).Round(100*time.Millisecond), controlplane.Server(u.state.Plan))
	u.report.Line("  export KUBECONFIG=%s PATH=%s:$PATH", u.l.Kubeconfig(), u.l.Bin())
	return nil
}

// prepare cleans a half-made cluster away, or keeps a whole one, and writes
// down what is going to be made.
func (u *up) prepare(machines int, hierarchies []cgroup.Hierarchy) error {
	state, err := readState(u.l)
	if err == nil && state.Complete && roomsAlive(u.l, state) {
		if machines < state.Machines {
			return fmt.Errorf("the cluster has %d machines and %d were asked for: machines can be added, not removed; `devcluster down --dir %s` first", state.Machines, machines, u.l.Dir)
		}
		u.state = state
	} else {
		if err == nil {
			u.report.Line("the cluster in %s is not whole any more, or never was (a reboot, a killed `up`): starting afresh, its objects are lost", u.l.Dir)
		}
		if err := sweep(u.l, hierarchies, false); err != nil {
			return err
		}
		used, err := subnet.InUse()
		if err != nil {
			return err
		}
		plan, err := subnet.Choose(u.l.ID, used)
		if err != nil {
			return err
		}
		u.state = State{Plan: plan, NetnsDir: network.NetnsDirMounted()}
	}
	u.state.Machines, u.state.Complete = machines, false
	for _, folder := range []string{u.l.RunDir(), u.l.LogDir(), u.l.SocketDir(), u.l.Path("tmp")} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return fmt.Errorf("preparing the cluster's directory: %w", err)
		}
	}
	return u.state.write(u.l)
}

func roomsAlive(l layout.Layout, state State) bool {
	for _, name := range state.rooms() {
		if _, err := room.Pid(l, name); err != nil {
			return false
		}
	}
	return true
}

func (u *up) joinCgroup(hierarchies []cgroup.Hierarchy) (func(), error) {
	name := u.l.CgroupName() + "/up"
	if err := cgroup.Create(hierarchies, name); err != nil {
		return nil, err
	}
	back, err := cgroup.Place(hierarchies)
	if err != nil {
		return nil, err
	}
	if err := cgroup.Join(hierarchies, name); err != nil {
		return nil, err
	}
	return sync.OnceFunc(func() {
		back()
		_ = cgroup.Remove(hierarchies, name, time.Second)
	}), nil
}

func (u *up) step(title string, do func(*progress.Step) error) error {
	step := u.report.Step(title)
	err := do(step)
	step.End(err)
	return err
}

// copySelf keeps this program beside the others: daemons start from it, and
// `go run` deletes its own.
func (u *up) copySelf() error {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("reading this program: %w", err)
	}
	target := u.l.Program("devcluster")
	if err := os.WriteFile(target+".new", self, 0o755); err != nil {
		return fmt.Errorf("copying this program: %w", err)
	}
	return os.Rename(target+".new", target)
}

func (u *up) makeRooms(*progress.Step) error {
	if err := controlplane.Issue(u.l, u.state.Plan); err != nil {
		return err
	}
	log, err := os.OpenFile(u.l.Path("log", "rooms.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("opening the rooms' log: %w", err)
	}
	defer log.Close()
	u.holders = map[string]int{}
	plan := u.state.Plan
	for i, name := range u.state.rooms() {
		spec := room.Spec{
			Name: name, Dir: u.l.RoomDir(name), Cgroup: u.l.CgroupName() + "/" + name,
			SocketDir: u.l.SocketDir(), Pause: u.l.Program("pause"),
			Hosts: map[string]string{plan.Node(): layout.NodeName}, Shadow: node.KernelSettings,
		}
		if i > 0 {
			spec.Hosts[plan.Machine(i)] = name
		}
		holder, err := room.Make(u.l, spec, log)
		if err != nil {
			return err
		}
		u.holders[name] = holder
	}
	if err := network.ConnectNode(u.l, plan, u.holders[layout.NodeName], controlplane.Port); err != nil {
		return err
	}
	for i := 1; i <= u.state.Machines; i++ {
		if err := network.ConnectMachine(u.l, plan, i, u.holders[layout.NodeName], u.holders[layout.MachineName(i)]); err != nil {
			return err
		}
	}
	return nil
}

// startFirst starts what depends on nothing, and uses the time that the API
// server needs for the runtimes.
func (u *up) startFirst(step *progress.Step) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	plan := u.state.Plan
	if err := controlplane.Start(u.l, plan); err != nil {
		return err
	}
	archive, err := u.pauseArchive()
	if err != nil {
		return err
	}
	restricted := preflight.RestrictedOOM()
	for i, name := range u.state.rooms() {
		options := containerd.Options{
			Room: name, Registry: registry.Host(plan), RestrictOOM: restricted,
			Pods: plan.NodePods(), Gateway: plan.NodePodGateway(),
		}
		if i > 0 {
			options.Pods, options.Gateway = plan.MachinePods(i), plan.MachinePodGateway(i)
		}
		if err := containerd.Start(u.l, options); err != nil {
			return err
		}
	}
	if err := registry.Start(u.l, plan); err != nil {
		return err
	}
	for _, name := range u.state.rooms() {
		if err := containerd.WaitReady(ctx, u.l, name); err != nil {
			return err
		}
		if err := containerd.Import(u.l, name, archive); err != nil {
			return err
		}
	}
	step.Detail("the runtimes are ready, the API server is starting")
	client, err := controlplane.Client(u.l)
	if err != nil {
		return err
	}
	return controlplane.WaitReady(ctx, u.l, client, plan)
}

func (u *up) pauseArchive() (string, error) {
	img, err := image.Build(image.Spec{
		Files:      []image.File{{Source: u.l.Program("pause"), Target: "/pause", Mode: 0o755}},
		Entrypoint: []string{"/pause"}, User: "65535:65535",
	})
	if err != nil {
		return "", err
	}
	tag, err := image.Parse(containerd.PauseImage)
	if err != nil {
		return "", err
	}
	file := u.l.Path("tmp", "pause.tar")
	return file, image.Save(file, tag, img)
}

func (u *up) startSecond(*progress.Step) error {
	if err := controlplane.StartControllers(u.l, u.state.Plan); err != nil {
		return err
	}
	return node.Start(u.l, u.state.Plan)
}

func (u *up) waitReady(step *progress.Step) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client, err := controlplane.Client(u.l)
	if err != nil {
		return err
	}
	if err := registry.WaitReady(ctx, u.l, u.state.Plan); err != nil {
		return err
	}
	if err := controlplane.GrantKubeletAccess(client, u.state.Plan); err != nil {
		return err
	}
	return node.WaitReady(ctx, u.l, client, u.state.Plan, func(why string) { step.Detail("%s", why) })
}

// Build makes the programs and nothing else; it needs no root.
func Build(l layout.Layout, kubernetes string, sources fs.FS, out *os.File) error {
	builder := build.Builder{Layout: l, Sources: sources, Kubernetes: kubernetes}
	missing, err := builder.Missing()
	if err != nil {
		return err
	}
	if err := claim(l); err != nil {
		return err
	}
	release, err := lock(l)
	if err != nil {
		return err
	}
	defer release()
	report := progress.New(out, len(missing))
	for _, target := range missing {
		step := report.Step(target.Title)
		err := builder.Build(target, step)
		step.End(err)
		if err != nil {
			return err
		}
	}
	if len(missing) > 0 && !layout.Exists(l.StateFile()) {
		_ = os.RemoveAll(l.Path("src"))
		_ = os.RemoveAll(l.Path("tmp"))
	}
	report.Line("built: %s", l.Bin())
	return nil
}
