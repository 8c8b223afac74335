package binding

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ainode/ainode/api/v1alpha1"
)

func TestNext(t *testing.T) {
	t.Parallel()
	unbound := &Record{Epoch: 3, Since: 3}
	bound := &Record{ClusterConfigName: "prod", Epoch: 3, Since: 3}
	renewed := &Record{ClusterConfigName: "prod", Epoch: 5, Since: 3}
	later := &Record{ClusterConfigName: "prod", Epoch: 4, Since: 4}
	restored, before := &Record{ClusterConfigName: "dev", Epoch: 2, Since: 2}, &Record{Epoch: 2, Since: 2}
	for name, c := range map[string]struct {
		s    Situation
		want Step
	}{
		"nothing known":                             {Situation{}, Wait},
		"no hub, nothing stored":                    {Situation{HubSilent: true}, Wait},
		"started, hub not asked long enough":        {Situation{Credential: 3, Since: 3}, Wait},
		"started, hub silent: pods go on":           {Situation{Credential: 3, Since: 3, HubSilent: true}, Serve},
		"serving, record gone: no proof":            {Situation{Credential: 3, Since: 3, Serving: true, Claim: Ours}, Serve},
		"unbound at start: look for leftovers once": {Situation{Record: unbound, Claim: Ours}, Release},
		"unbound":                                {Situation{Record: unbound, Claim: Ours, Clean: true}, Rest},
		"bound, no lease yet":                    {Situation{Record: bound, Clean: true}, Wait},
		"bound, leftovers first":                 {Situation{Record: bound, Claim: Ours}, Release},
		"bound, no credential":                   {Situation{Record: bound, Claim: Ours, Clean: true}, Obtain},
		"bound, credential":                      {Situation{Record: bound, Claim: Ours, Credential: 3, Since: 3}, Serve},
		"restart, no lease yet":                  {Situation{Record: bound, Credential: 3, Since: 3}, Wait},
		"serving, lease not renewed":             {Situation{Record: bound, Credential: 3, Since: 3, Serving: true}, Serve},
		"401 keeps serving":                      {Situation{Record: bound, Claim: Ours, Credential: 3, Since: 3, Serving: true, Refused: true}, Refresh},
		"released":                               {Situation{Record: unbound, Claim: Ours, Credential: 3, Since: 3, Serving: true}, Release},
		"released while down":                    {Situation{Record: unbound, Credential: 3, Since: 3}, Release},
		"released, then 401":                     {Situation{Record: unbound, Claim: Ours, Credential: 3, Since: 3, Serving: true, Refused: true}, Release},
		"another epoch":                          {Situation{Record: later, Claim: Ours, Credential: 3, Since: 3, Serving: true}, Release},
		"another epoch, cleaned":                 {Situation{Record: later, Claim: Ours, Clean: true}, Obtain},
		"renewed, the old one still good":        {Situation{Record: renewed, Claim: Ours, Credential: 3, Since: 3, Serving: true}, Refresh},
		"renewed, the old one dead":              {Situation{Record: renewed, Claim: Ours, Credential: 3, Since: 3, Serving: true, Refused: true}, Refresh},
		"renewed while down":                     {Situation{Record: renewed, Claim: Ours, Credential: 3, Since: 3}, Refresh},
		"renewed while down, no lease yet":       {Situation{Record: renewed, Credential: 3, Since: 3}, Wait},
		"renewed, taken over":                    {Situation{Record: renewed, Claim: Ours, Credential: 5, Since: 3, Serving: true}, Serve},
		"renewed before it had any":              {Situation{Record: renewed, Claim: Ours, Clean: true}, Obtain},
		"the hub restored, to before a renewal":  {Situation{Record: bound, Claim: Ours, Credential: 5, Since: 3, Serving: true}, Serve},
		"an epoch of the range, another binding": {Situation{Record: &Record{ClusterConfigName: "prod", Epoch: 5, Since: 4}, Claim: Ours, Credential: 3, Since: 3, Serving: true}, Release},
		"learnt again by a restored hub":         {Situation{Record: &Record{ClusterConfigName: "prod", Epoch: 5, Since: 5}, Claim: Ours, Credential: 5, Since: 3, Serving: true}, Serve},
		"nobody heard":                           {Situation{Record: bound, Claim: Ours, Credential: 3, Since: 3, Serving: true, Unheard: true}, Fence},
		"nobody heard since a start":             {Situation{Credential: 3, Since: 3, HubSilent: true, Unheard: true}, Fence},
		"nobody heard, nothing bound":            {Situation{Record: unbound, Claim: Ours, Clean: true, Unheard: true}, Rest},
		"another machine":                        {Situation{Record: bound, Claim: Elsewhere, Credential: 3, Since: 3, Serving: true}, Yield},
		"another machine, unbound":               {Situation{Record: unbound, Claim: Elsewhere}, Release},
		"another machine, unbound, clean":        {Situation{Clean: true, Record: unbound, Claim: Elsewhere}, Yield},
		"another machine, bound anew":            {Situation{Record: &Record{ClusterConfigName: "prod", Epoch: 4, Since: 4}, Claim: Elsewhere, Credential: 3, Since: 3, Serving: true}, Release},
		"its end has come":                       {Situation{Record: bound, Claim: Ours, Credential: 3, Since: 3, Serving: true, Expired: true}, GiveBack},
		"its end came unserved":                  {Situation{Record: bound, Claim: Ours, Clean: true, Expired: true}, GiveBack},
		"its end, another machine's":             {Situation{Record: bound, Claim: Elsewhere, Credential: 3, Since: 3, Expired: true}, Yield},
		"its end, and let go":                    {Situation{Record: unbound, Claim: Ours, Credential: 3, Since: 3, Serving: true, Expired: true}, Release},
		"its end in the middle of a renewal":     {Situation{Record: renewed, Claim: Ours, Credential: 3, Since: 3, Serving: true, Expired: true}, GiveBack},
		"a restored hub, serving":                {Situation{Record: restored, Claim: Ours, Credential: 3, Since: 3, Serving: true}, Serve},
		"a restored hub, unbound":                {Situation{Record: before, Claim: Ours, Credential: 3, Since: 3, Serving: true}, Serve},
		"a restored hub at start":                {Situation{Record: before, Claim: Ours, Credential: 3, Since: 3}, Serve},
		"a restored hub, no lease":               {Situation{Record: before, Credential: 3, Since: 3}, Wait},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, c.want, next(c.s))
		})
	}
}

// Whatever else is the case: without a record, or with one that shows this very
// binding, renewed or not, or an earlier epoch, no pod is stopped.
func TestOnlyProofReleases(t *testing.T) {
	t.Parallel()
	for _, record := range []*Record{
		nil, {ClusterConfigName: "prod", Epoch: 4, Since: 3}, {ClusterConfigName: "prod", Epoch: 3, Since: 3},
		{ClusterConfigName: "prod", Epoch: 3, Since: 3, Draining: true}, {ClusterConfigName: "prod", Epoch: 2, Since: 2}, {Epoch: 2, Since: 2},
	} {
		for bits := range 1 << 4 {
			for _, claim := range []Claim{Unclaimed, Ours, Elsewhere} {
				s := Situation{
					Record: record, Credential: 3, Since: 3, Claim: claim,
					HubSilent: bits&1 != 0, Serving: bits&2 != 0, Refused: bits&4 != 0, Clean: bits&8 != 0,
				}
				require.NotEqual(t, Release, next(s), "%+v", s)
			}
		}
	}
}

func TestBindStatus(t *testing.T) {
	t.Parallel()
	record := &Record{ClusterConfigName: "prod", Epoch: 3, Since: 3}
	renewed := &Record{ClusterConfigName: "prod", Epoch: 5, Since: 3}
	draining := &Record{ClusterConfigName: "prod", Epoch: 3, Since: 3, Draining: true}
	for name, c := range map[string]struct {
		step       Step
		s          Situation
		registered bool
		before     v1alpha1.BindStatus
		observed   int64
		want       v1alpha1.BindStatus
		epoch      int64
	}{
		"first sight":                 {step: Wait, s: Situation{Record: record}, want: v1alpha1.Unbound},
		"obtaining":                   {step: Obtain, s: Situation{Record: record}, before: v1alpha1.Unbound, observed: 2, want: v1alpha1.Binding, epoch: 3},
		"not registered yet":          {step: Serve, s: Situation{Record: record, Credential: 3, Since: 3}, before: v1alpha1.Binding, observed: 3, want: v1alpha1.Binding, epoch: 3},
		"registered":                  {step: Serve, s: Situation{Record: record, Credential: 3, Since: 3}, registered: true, before: v1alpha1.Binding, observed: 3, want: v1alpha1.Bound, epoch: 3},
		"restarted":                   {step: Serve, s: Situation{Record: record, Credential: 3, Since: 3}, before: v1alpha1.Bound, observed: 3, want: v1alpha1.Bound, epoch: 3},
		"bound in an earlier epoch":   {step: Serve, s: Situation{Record: record, Credential: 3, Since: 3}, before: v1alpha1.Bound, observed: 2, want: v1alpha1.Binding, epoch: 3},
		"draining":                    {step: Serve, s: Situation{Record: draining, Credential: 3, Since: 3}, registered: true, before: v1alpha1.Bound, observed: 3, want: v1alpha1.Draining, epoch: 3},
		"draining ended":              {step: Serve, s: Situation{Record: record, Credential: 3, Since: 3}, registered: true, before: v1alpha1.Draining, observed: 3, want: v1alpha1.Bound, epoch: 3},
		"to be renewed":               {step: Refresh, s: Situation{Record: renewed, Credential: 3, Since: 3}, registered: true, before: v1alpha1.Bound, observed: 3, want: v1alpha1.Bound, epoch: 3},
		"renewed just now":            {step: Serve, s: Situation{Record: renewed, Credential: 5, Since: 3}, before: v1alpha1.Bound, observed: 3, want: v1alpha1.Bound, epoch: 5},
		"renewed while draining":      {step: Refresh, s: Situation{Record: &Record{ClusterConfigName: "prod", Epoch: 5, Since: 3, Draining: true}, Credential: 3, Since: 3}, registered: true, before: v1alpha1.Draining, observed: 3, want: v1alpha1.Draining, epoch: 3},
		"releasing":                   {step: Release, s: Situation{Record: &Record{Epoch: 3, Since: 3}, Credential: 3, Since: 3}, before: v1alpha1.Draining, observed: 3, want: v1alpha1.Unbinding, epoch: 3},
		"looking for leftovers":       {step: Release, s: Situation{Record: &Record{Epoch: 3, Since: 3}}, before: v1alpha1.Unbound, observed: 3, want: v1alpha1.Unbound, epoch: 3},
		"released":                    {step: Rest, s: Situation{Record: &Record{Epoch: 3, Since: 3}}, before: v1alpha1.Unbinding, observed: 3, want: v1alpha1.Unbound, epoch: 3},
		"a restored hub":              {step: Serve, s: Situation{Record: &Record{Epoch: 1, Since: 1}, Credential: 3, Since: 3}, registered: true, before: v1alpha1.Unbound, observed: 1, want: v1alpha1.Bound, epoch: 3},
		"nothing known of the record": {step: Serve, s: Situation{}, before: v1alpha1.Bound, observed: 3, want: v1alpha1.Bound, epoch: 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, epoch := bindStatus(c.step, c.s, c.registered, c.before, c.observed)
			require.Equal(t, c.want, got)
			require.Equal(t, c.epoch, epoch)
		})
	}
}
