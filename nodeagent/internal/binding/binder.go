// Package binding walks one machine through its bindings: it joins the pool, holds
// the node's Lease on the hub, watches its record, takes the credential that bind
// hands over, has the node served while it is bound, and gives everything back when
// the record says so.
package binding

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/api/handover"
	"github.com/ainode/ainode/api/identity"
	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/nodeagent/internal/term"
)

// silence is how long a start waits for the hub before it goes on with a stored
// credential: long enough to learn of a release, short enough for pods.
const silence = 5 * time.Second

// Options are what New needs. All but FenceAfter are required.
type Options struct {
	Store  Store
	Joined Joined
	Key    handover.KeyPair
	// Holder names this machine in the Lease.
	Holder string
	// Facts are asked for at each report, and must not block.
	Facts  func() Facts
	Tenant Tenant
	Clock  clock.WithTicker
	// FenceAfter is how long hub and target may both be silent before the machine ends
	// its pods; 0: for ever.
	FenceAfter time.Duration
}

// Binder is the walk. Run it once.
type Binder struct {
	o        Options
	hubToken *Keeper
	hub      kubernetes.Interface
	records  *records
	lease    *claimer
	obtain   *obtainer
	end      *term.Known
	hubClock *hubClock
	wake     chan struct{}
	// shown is closed once it is known from the record whose the name is.
	shown     chan struct{}
	shownOnce sync.Once
	retry     *flowcontrol.Backoff

	mu         sync.Mutex
	record     *v1alpha1.AINode
	claim      Claim
	other      string // the machine that holds the Lease if it is not this one
	owner      string // the machine whose the binding is if it is not this one's, heard of or not
	registered bool
	problem    string // of the last step, for people
	trouble    string // of serving, for people
	heard      time.Time
	noted      time.Time // that it was heard, for a restart

	// Only Run's goroutine touches these.
	credential *Credential
	kept       KeptEnd
	blanked    int64 // the epoch whose sealed credential is known to be gone from the hub
	blankNext  time.Time
	taken      int64 // the epoch whose credential was taken over since the start
	clean      bool
	began      time.Time
	serving    *serving
	fenced     bool
	wrote      time.Time
	// said is the patch of the status that was written last, saidTo the version that the
	// record had after it.
	said, saidTo string
}

// serving is a tenancy in progress.
type serving struct {
	stop  context.CancelFunc
	done  chan struct{}
	token *Keeper
}

// New makes a Binder from the stored state.
func New(o Options) (*Binder, error) {
	token, err := o.Store.HubToken()
	if err != nil {
		return nil, fmt.Errorf("the hub's token is missing (join again: kubectl ainode add %s): %w", o.Joined.Node, err)
	}
	credential, err := o.Store.Credential()
	if err != nil {
		return nil, err
	}
	end, err := o.Store.End()
	if err != nil {
		return nil, err
	}
	boot := o.Facts().Machine.BootID
	started, err := o.Store.Started(boot)
	if err != nil {
		return nil, err
	}
	b := &Binder{
		o: o, credential: credential, kept: end, end: &term.Known{}, wake: make(chan struct{}, 1), shown: make(chan struct{}),
		retry: flowcontrol.NewBackOff(time.Second, 30*time.Second),
	}
	b.end.News = b.poke
	b.end.Set(end.End)
	b.hubClock = &hubClock{running: running, started: started, saved: started, save: func(at time.Time) error { return o.Store.SaveStarted(boot, at) }}
	b.heard = o.Store.lastHeard(o.Clock.Now())
	b.hubToken = &Keeper{Save: o.Store.SaveHubToken, Heard: b.hear, Clock: o.Clock}
	b.hubToken.Set(token)
	cfg := hubConfig(o.Joined, b.hubToken.Wrap)
	if b.hub, err = clientFor(cfg); err != nil {
		return nil, err
	}
	if b.records, err = recordClient(cfg); err != nil {
		return nil, err
	}
	b.hubToken.Renew = func(ctx context.Context) (Token, error) {
		return requestToken(ctx, b.hub, identity.HubAccount(o.Joined.Node), o.Clock.Now())
	}
	// A client of its own: the time is that of the answer about the Lease.
	leases, err := clientFor(hubConfig(o.Joined, func(rt http.RoundTripper) http.RoundTripper { return b.hubToken.Wrap(b.hubClock.wrap(rt)) }))
	if err != nil {
		return nil, err
	}
	b.lease = &claimer{hub: leases, node: o.Joined.Node, holder: o.Holder, clock: o.Clock, hubTime: b.hubClock.last}
	b.obtain = &obtainer{hub: b.hub, node: o.Joined.Node, key: o.Key, clock: o.Clock}
	return b, nil
}

// Run walks until ctx ends; pods are left running then.
func (b *Binder) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	node := b.o.Joined.Node
	secrets, err := kubernetes.NewForConfig(hubConfig(b.o.Joined, b.hubToken.Wrap)) // watches: no timeout
	if err != nil {
		return fmt.Errorf("make a client of the hub: %w", err)
	}
	b.hubToken.Changed = func() {
		if b.hubToken.Refused() {
			klog.FromContext(ctx).Info("The hub does not accept this machine's token any more; what runs is kept "+
				"(if the node was removed, stop the agent; else join again: kubectl ainode add "+node+")", "node", node)
		}
		b.poke()
	}
	for _, run := range []func(context.Context){
		b.hubToken.Run, b.holdLease, func(ctx context.Context) { b.watchHub(ctx, secrets) },
	} {
		wg.Go(func() { run(ctx) })
	}

	b.began = b.o.Clock.Now()
	// What is not urgent waits for its turn from the start on: a tenant that has just
	// begun may not have counted its pods yet.
	b.wrote = b.began
	for {
		again := b.step(ctx)
		timer := b.o.Clock.NewTimer(again)
		select {
		case <-ctx.Done():
			timer.Stop()
			b.stopServing()
			return nil
		case <-b.wake:
			timer.Stop()
		case <-timer.C():
		}
	}
}

// step does one step and returns after how long to look again at the latest.
func (b *Binder) step(ctx context.Context) time.Duration {
	s, record := b.situation()
	b.keepEnd(ctx, record)
	s.Expired = b.expired(s, record)
	b.blankTaken(ctx, s)
	step := next(s)
	log := klog.FromContext(ctx).WithValues("node", b.o.Joined.Node, "step", step)
	// What is about to happen is told before it takes its time.
	again := min(b.report(ctx, step, s), b.untilEnd(record), b.untilFence())
	err := b.do(ctx, step, s, record)
	b.mu.Lock()
	b.problem = ""
	if err != nil {
		b.problem = err.Error()
	}
	b.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		return again
	case errors.Is(err, errNotThere):
		return min(again, 5*time.Second)
	case err != nil:
		b.retry.Next(string(step), b.o.Clock.Now())
		log.Error(err, "Step not done, trying again", "after", b.retry.Get(string(step)))
		b.report(ctx, step, s)
		return b.retry.Get(string(step))
	}
	b.retry.Reset(string(step))
	after, _ := b.situation()
	if following := next(after); following != step {
		log.Info("Step done", "next", following)
		return 0
	}
	return min(again, b.report(ctx, step, after))
}

func (b *Binder) do(ctx context.Context, step Step, s Situation, record *v1alpha1.AINode) error {
	switch step {
	case Serve:
		b.serve(ctx)
	case Refresh:
		b.serve(ctx)
		return b.refresh(ctx, record)
	case Obtain:
		credential, err := b.obtain.obtain(ctx, record.Spec)
		if err != nil {
			return err
		}
		return b.take(credential)
	case Release:
		if still, err := b.confirmed(ctx, record); err != nil || !still {
			return err
		}
		text := "Releasing: every pod is stopped and the credential wiped"
		if b.credential == nil {
			text = "Nothing is bound here: what an earlier binding may have left is looked for, and ended"
		}
		klog.FromContext(ctx).Info(text, "node", b.o.Joined.Node,
			"recordEpoch", record.Spec.BindEpoch, "recordConfig", record.Spec.ClusterConfigName, "servedEpoch", b.servedEpoch())
		b.stopServing()
		if err := b.o.Tenant.StopAll(ctx); err != nil {
			return fmt.Errorf("stop the pods of the binding: %w", err)
		}
		if s.Claim != Elsewhere { // else the Node is another's
			b.markReleased(ctx, record)
		}
		if err := b.o.Store.Wipe(); err != nil {
			return err
		}
		b.end.Set(term.End{})
		b.kept = KeptEnd{}
		b.credential, b.clean = nil, true
	case GiveBack:
		return b.giveBack(ctx, record)
	case Fence:
		return b.fence(ctx)
	case Yield:
		b.stopServing()
	case Wait, Rest:
	}
	return nil
}

// servedEpoch is the epoch of the stored credential, 0 without one.
func (b *Binder) servedEpoch() int64 {
	if b.credential == nil {
		return 0
	}
	return b.credential.Epoch
}

// confirmed reads the record once more, from the hub's store and not from a watch's
// memory, before anything is taken away by it: a start against a hub that lags
// behind may show a binding before this one.
func (b *Binder) confirmed(ctx context.Context, record *v1alpha1.AINode) (bool, error) {
	now, err := b.readRecord(ctx)
	if err != nil {
		return false, fmt.Errorf("read the record of %q once more before releasing: %w", b.o.Joined.Node, err)
	}
	if now.Spec.ClusterConfigName == record.Spec.ClusterConfigName && now.Spec.BindEpoch == record.Spec.BindEpoch {
		return true, nil
	}
	b.sawRecord(now)
	return false, nil
}

// readRecord reads the record from the hub's store.
func (b *Binder) readRecord(ctx context.Context) (*v1alpha1.AINode, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	return b.records.Get(ctx, b.o.Joined.Node, metav1.GetOptions{})
}

// serve has the tenant run, again after an error.
func (b *Binder) serve(ctx context.Context) {
	if b.serving != nil {
		return
	}
	c := *b.credential
	b.fenced = false
	keeper := &Keeper{Clock: b.o.Clock, Changed: b.poke, Heard: b.hear}
	keeper.Set(c.Token)
	keeper.Save = func(t Token) error {
		c := c
		c.Token = t
		return b.o.Store.SaveCredential(c)
	}
	keeper.Renew = func(ctx context.Context) (Token, error) {
		client, err := clientFor(targetConfig(c.Credential, keeper.Wrap))
		if err != nil {
			return Token{}, err
		}
		return requestToken(ctx, client, c.ServiceAccount, b.o.Clock.Now())
	}
	target := Target{
		Node: c.Node, Epoch: c.Epoch, Since: c.since(), Config: nodeConfig(c.Credential, keeper.Wrap),
		ClientCA: c.ClientCAData, Labels: c.NodeLabels, PodCIDR: c.PodCIDR, Address: c.Address, Refused: keeper.Refused,
		End: b.end, HubTime: b.hubClock.now,
	}
	ctx, stop := context.WithCancel(ctx)
	b.serving = &serving{stop: stop, done: make(chan struct{}), token: keeper}
	go func(done chan struct{}) {
		defer close(done)
		var wg sync.WaitGroup
		wg.Go(func() { keeper.Run(ctx) })
		defer wg.Wait()
		pause := time.Second
		for ctx.Err() == nil {
			err := b.o.Tenant.Serve(ctx, target, func() { b.note(true, "") })
			if ctx.Err() != nil {
				return
			}
			b.note(false, fmt.Sprint(err))
			klog.FromContext(ctx).Error(err, "Node not served, trying again", "after", pause)
			timer := b.o.Clock.NewTimer(pause)
			select {
			case <-ctx.Done():
			case <-timer.C():
			}
			timer.Stop()
			pause = min(2*pause, 30*time.Second)
		}
	}(b.serving.done)
}

func (b *Binder) stopServing() {
	if b.serving == nil {
		return
	}
	b.serving.stop()
	<-b.serving.done
	b.serving = nil
	b.note(false, "")
}

func (b *Binder) note(registered bool, trouble string) {
	b.mu.Lock()
	b.registered, b.trouble = registered, trouble
	b.mu.Unlock()
	b.poke()
}

func (b *Binder) poke() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

func (b *Binder) sawRecord(object any) {
	record, _ := object.(*v1alpha1.AINode)
	b.mu.Lock()
	b.record = record
	b.mu.Unlock()
	b.poke()
}

func (b *Binder) holdLease(ctx context.Context) {
	const again = 2 * time.Second
	select { // whose the name is stands in the record
	case <-b.shown:
	case <-ctx.Done():
		return
	}
	pause := again
	for {
		b.mu.Lock()
		state, other, err := Elsewhere, b.owner, error(nil)
		b.mu.Unlock()
		if other == "" {
			state, other, err = b.lease.claim(ctx)
		}
		wait := leaseRenewal
		if err != nil {
			wait, pause = pause, min(2*pause, leaseRenewal)
			if ctx.Err() == nil && !b.hubToken.Refused() {
				klog.FromContext(ctx).Error(err, "Lease on the hub not renewed")
			}
		} else {
			pause = again
			b.mu.Lock()
			changed := b.claim != state
			b.claim, b.other = state, other
			b.mu.Unlock()
			if changed || state == Elsewhere {
				b.poke()
			}
		}
		timer := b.o.Clock.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			if err := b.lease.leave(ctx); err != nil {
				klog.FromContext(ctx).Info("The Lease still says what this agent knows", "cause", err.Error())
			}
			return
		case <-timer.C():
		}
	}
}

func (b *Binder) situation() (Situation, *v1alpha1.AINode) {
	unheard := b.unheardFor() >= b.o.FenceAfter && b.o.FenceAfter > 0
	b.mu.Lock()
	defer b.mu.Unlock()
	s := Situation{
		Claim: b.claim, Clean: b.clean, Serving: b.serving != nil,
		HubSilent: b.o.Clock.Since(b.began) >= silence,
		Refused:   b.serving != nil && b.serving.token.Refused(),
	}
	s.Unheard = unheard && s.HubSilent
	s.Leaving = b.end.Leaving()
	if b.credential != nil {
		s.Credential, s.Since = b.credential.Epoch, b.credential.since()
	}
	if b.owner = owner(b.record, b.o.Key.Public, s.Credential); b.owner != "" {
		s.Claim = Elsewhere
	}
	if b.record != nil {
		b.shownOnce.Do(func() { close(b.shown) })
		s.Record = &Record{
			ClusterConfigName: b.record.Spec.ClusterConfigName, Epoch: b.record.Spec.BindEpoch, Since: b.record.Spec.FirstEpoch(),
			Draining: b.record.Spec.Draining,
		}
	}
	return s, b.record
}

// patchStatus writes a merge patch to the record's status, of the version that it was made
// from. Not all of a status is this machine's alone: its conditions are one list, where
// another machine complains and an unbinding by force is noted, and with that somebody
// speaks in this machine's place. A report that comes late must overwrite none of it.
func (b *Binder) patchStatus(ctx context.Context, version string, patch []byte) (*v1alpha1.AINode, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	patch, err := jsonpatch.MergeMergePatches(patch, fmt.Appendf(nil, `{"metadata":{"resourceVersion":%q}}`, version))
	if err != nil {
		return nil, fmt.Errorf("encode a patch: %w", err)
	}
	answer, err := b.records.Patch(ctx, b.o.Joined.Node, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil {
		return nil, fmt.Errorf("write the status of %q: %w", b.o.Joined.Node, err)
	}
	return answer, nil
}
