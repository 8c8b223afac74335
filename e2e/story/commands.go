package story

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// Failed is a command that ended with another exit code than 0.
type Failed struct {
	Command string
	Code    int
	Stdout  string
	Stderr  string
}

func (f *Failed) Error() string {
	return fmt.Sprintf("%s: exit %d: %s", f.Command, f.Code, strings.TrimSpace(f.Stderr+f.Stdout))
}

// environment keeps strays away: every program of the story finds the story's own
// programs and cluster first.
func (s *Story) environment() []string {
	return append(os.Environ(),
		"PATH="+s.bin("")+":"+os.Getenv("PATH"),
		"KUBECONFIG="+s.cluster.Kubeconfig,
		"HELM_CACHE_HOME="+s.Dir+"/helm", "HELM_CONFIG_HOME="+s.Dir+"/helm", "HELM_DATA_HOME="+s.Dir+"/helm",
	)
}

func (s *Story) run(ctx context.Context, stdin string, show bool, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = s.Root
	cmd.Env = s.environment()
	if stdin != "" {
		cmd.Stdin = strings.NewReader(stdin)
	}
	var stdout, stderr bytes.Buffer
	out := &lineWriter{to: s.Out}
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if show {
		// Both by one pipe, as on a terminal: what was printed first is shown first.
		both := tee{&stdout, out}
		cmd.Stdout, cmd.Stderr = both, both
	}
	err := cmd.Run()
	out.flush()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return stdout.String(), &Failed{
			Command: strings.Join(cmd.Args, " "), Code: exit.ExitCode(), Stdout: stdout.String(), Stderr: stderr.String(),
		}
	}
	if err != nil {
		return stdout.String(), fmt.Errorf("run %s: %w", name, err)
	}
	return stdout.String(), nil
}

// quiet runs a command and shows nothing of it.
func (s *Story) quiet(ctx context.Context, name string, args ...string) (string, error) {
	return s.run(ctx, "", false, name, args...)
}

// Run runs one of the story's own programs and shows nothing of it.
func (s *Story) Run(ctx context.Context, program string, args ...string) (string, error) {
	return s.quiet(ctx, s.bin(program), args...)
}

// typed shows a command as a person would type it, then runs it and shows what it
// prints.
func (s *Story) typed(ctx context.Context, name string, args ...string) (string, error) {
	fmt.Fprintf(s.Out, "   $ %s %s\n", name, strings.Join(args, " "))
	return s.run(ctx, "", true, s.bin(name), args...)
}

// Kubectl runs the cluster's own kubectl and shows nothing of it.
func (s *Story) Kubectl(ctx context.Context, args ...string) (string, error) {
	return s.quiet(ctx, s.bin("kubectl"), args...)
}

// Apply applies a manifest; what the API server warns of comes back too.
func (s *Story) Apply(ctx context.Context, manifest string) (string, error) {
	return s.run(ctx, manifest, false, s.bin("kubectl"), "apply", "-f", "-")
}

// applyShown applies an embedded manifest and shows what kubectl prints, warnings
// of the webhook too.
func (s *Story) applyShown(ctx context.Context, name string) error {
	text, err := s.manifest(name)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.Out, "   $ kubectl apply -f e2e/story/manifests/%s\n", name)
	_, err = s.run(ctx, text, true, s.bin("kubectl"), "apply", "-f", "-")
	return err
}

// Ainode runs kubectl ainode, as kubectl finds it: a plugin on the PATH.
func (s *Story) Ainode(ctx context.Context, args ...string) (string, error) {
	return s.quiet(ctx, s.bin("kubectl"), append([]string{"ainode"}, args...)...)
}

func (s *Story) devcluster(ctx context.Context, show bool, verb string, args ...string) (string, error) {
	return s.run(ctx, "", show, s.bin("devcluster"), append([]string{verb, "--dir", s.Dir}, args...)...)
}

type tee struct {
	a, b interface{ Write([]byte) (int, error) }
}

func (t tee) Write(p []byte) (int, error) {
	if n, err := t.a.Write(p); err != nil {
		return n, err
	}
	return t.b.Write(p)
}
