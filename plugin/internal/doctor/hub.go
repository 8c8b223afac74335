package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ainode/ainode/api/diagnosis"
	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/plugin/internal/kube"
	"github.com/ainode/ainode/plugin/internal/remedy"
)

// clearsUp is what becomes of what a binding leaves that ended a moment ago
// (webhook/internal/housekeeper).
const clearsUp = "where hub and target are one cluster, it is cleared up within half a minute by itself"

var hubChecks = []check{
	{"hub", Hub, standing | before, hubAnswers},
	{"hub-version", Hub, standing | before, func(_ context.Context, s *sight) (string, []flaw, error) {
		if s.sameCluster() {
			return "", nil, nil // the target's check says it
		}
		return version(s.Hub)
	}},
	{"hub-clock", Hub, standing, func(ctx context.Context, s *sight) (string, []flaw, error) {
		if s.sameCluster() {
			return "", nil, nil
		}
		return clockOf(ctx, s, s.Hub)
	}},
	{"bound-nodes", Hub, standing, boundNodes},
}

// sameCluster reports whether hub and target are reached the same way.
func (s *sight) sameCluster() bool { return s.Hub.Config == s.Target.Config }

// flawOf makes what an error says a finding's; its way out becomes the fix.
func flawOf(severity diagnosis.Severity, err error, why string) flaw {
	return flaw{severity, err.Error(), why, remedy.Lines(err)}
}

// hubAnswers is the gate: without the records nothing is known of any node.
func hubAnswers(_ context.Context, s *sight) (string, []flaw, error) {
	records, err := s.records()
	if err != nil {
		f := flawOf(Error, err, "without the records nothing is known of AI nodes; the rest of the hub and the nodes were not looked at")
		if len(f.fix) == 0 {
			f.fix = append(f.fix, fix("See which cluster your kubeconfig names", "kubectl config view --minify"))
		}
		return "", []flaw{f}, nil
	}
	configs, err := s.configs()
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("%s, %s", diagnosis.Count(len(records), "AI node"), diagnosis.Count(len(configs), "config")), nil, nil
}

func version(c *kube.Cluster) (string, []flaw, error) {
	info, err := c.Core.Discovery().ServerVersion()
	if err != nil {
		return "", nil, err
	}
	if d := kube.Judge(info.GitVersion); d != nil {
		severity := Warning
		if d.Unfit {
			severity = Error
		}
		return one(severity, d.What, d.Why, d.Fix)
	}
	return info.GitVersion, nil, nil
}

// skew is how far two clocks may be apart: a Date header is exact to a second, and
// an answer takes its time.
const skew = 5 * time.Second

// clockOf compares the person's clock with the API server's: ages and ends that the
// commands show are wrong by what lies between.
func clockOf(ctx context.Context, s *sight, c *kube.Cluster) (string, []flaw, error) {
	if c.Date == nil {
		return "", nil, nil
	}
	date, err := c.Date(ctx)
	if err != nil {
		return "", nil, err
	}
	if apart := s.Clock.Now().Sub(date); apart.Abs() > skew {
		return one(Warning, fmt.Sprintf("your clock is %s the %s's", aheadOf(apart), c.Name), "ages are wrong by that much, and living nodes may look lost",
			fix("Set one of them", "timedatectl set-ntp true"))
	}
	return "the same as yours, within " + skew.String(), nil, nil
}

func aheadOf(d time.Duration) string {
	if d < 0 {
		return (-d).Round(time.Second).String() + " behind"
	}
	return d.Round(time.Second).String() + " ahead of"
}

// boundNodes finds what is listed as bound and is not: an unbinding whose plugin
// died before its last write. Such a config can't be deleted.
func boundNodes(_ context.Context, s *sight) (string, []flaw, error) {
	records, err := s.records()
	if err != nil {
		return "", nil, err
	}
	configs, err := s.configs()
	if err != nil {
		return "", nil, err
	}
	bound := map[string]string{}
	for _, r := range records {
		bound[r.Name] = r.Spec.ClusterConfigName
	}
	var flaws []flaw
	listed := 0
	for _, c := range configs {
		for _, node := range c.Status.BoundNodes {
			listed++
			to, there := bound[node]
			switch {
			case !there:
				left := slices.DeleteFunc(slices.Clone(c.Status.BoundNodes), func(n string) bool { return n == node })
				flaws = append(flaws, flaw{Warning, fmt.Sprintf("config %q lists %s as bound, which has no record", c.Name, node), "the config can't be deleted",
					[]string{fix("Take it from the list", `kubectl patch clusterconfig %s --subresource=status --type=merge -p '{"status":{"boundNodes":[%s]}}'`, c.Name, quoted(left))}})
			case to != c.Name:
				flaws = append(flaws, flaw{Warning, fmt.Sprintf("config %q lists %s as bound, which it is not any more", c.Name, node),
					"its unbinding did not end yet: its node and identity may be left on the target; " + clearsUp, []string{fix("Finish it", "kubectl ainode unbind %s", node)}})
			}
		}
	}
	for _, r := range records {
		to := r.Spec.ClusterConfigName
		if to != "" && !slices.ContainsFunc(configs, func(c v1alpha1.ClusterConfig) bool { return c.Name == to }) {
			flaws = append(flaws, flaw{Error, fmt.Sprintf("%s is bound to %q, a config that is not there", r.Name, to), "nobody knows which cluster that is",
				[]string{fix("Import the cluster again under that name", "kubectl ainode import %s", to)}})
		}
	}
	return diagnosis.Count(listed, "node") + " bound, each with its record", flaws, nil
}

func quoted(names []string) string {
	for i := range names {
		names[i] = `"` + names[i] + `"`
	}
	return strings.Join(names, ",")
}
