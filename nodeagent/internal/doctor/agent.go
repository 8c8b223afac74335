package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ainode/ainode/api/diagnosis"
	"github.com/ainode/ainode/nodeagent/internal/binding"
)

// state judges who may read what the agent remembers: it holds credentials.
func state(_ context.Context, s *sight) []diagnosis.Finding {
	dir := s.Config.StateDir
	var open []string
	looked := 0
	for _, path := range []string{string(dir), dir.Key(), dir.HubToken(), dir.Target(), dir.Credential()} {
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return found(Error, err.Error(), "the agent can't read what it remembers")
		}
		looked++
		owner, ok := info.Sys().(*syscall.Stat_t)
		if info.Mode().Perm()&0o077 != 0 || ok && owner.Uid != 0 {
			open = append(open, path)
		}
	}
	if len(open) > 0 {
		return found(Error, "others than root may read "+strings.Join(open, ", "), "it holds the machine's key and tokens",
			"Close it:  chown -R root:root "+string(dir)+"; chmod 700 "+string(dir)+"; chmod -R go= "+dir.Target(),
			"If somebody may have read it, unbind the node and let it join anew:  ainode-agent join --reset --file PATH")
	}
	if looked == 0 {
		return saw(string(dir) + " is made when the machine joins")
	}
	return saw(string(dir) + " is root's alone")
}

func joined(_ context.Context, s *sight) []diagnosis.Finding {
	_, err := s.store.Joined()
	switch {
	case errors.Is(err, binding.ErrNotJoined):
		return found(Warning, "this machine has not joined a pool", "it is no AI node yet", "Print a join file elsewhere:  kubectl ainode add ai-NAME", "Then here:  ainode-agent join --file PATH")
	case err != nil:
		return found(Error, err.Error(), "the agent does not start", "Join anew:  ainode-agent join --reset --file PATH")
	}
	text := fmt.Sprintf("%s of %s", s.joined.Node, s.joined.Server)
	token, err := s.store.HubToken()
	if err != nil {
		return found(Error, "the token for the hub can't be read: "+err.Error(), "the agent can't tell the hub anything",
			"Print a join file elsewhere:  kubectl ainode add "+s.joined.Node, "Then here:  ainode-agent join --file PATH")
	}
	if s.Clock.Now().After(token.Expires) {
		return found(Error, fmt.Sprintf("%s; its token for the hub ended %s ago", text, s.since(token.Expires)), "the hub refuses the agent, so that nobody can bind or unbind it",
			"Print a join file elsewhere:  kubectl ainode add "+s.joined.Node, "Then here:  ainode-agent join --file PATH")
	}
	return saw(text)
}

func (s *sight) since(t time.Time) string { return s.Clock.Since(t).Round(time.Minute).String() }

func hub(ctx context.Context, s *sight) []diagnosis.Finding {
	if s.joined == nil {
		return nil
	}
	return s.reach(ctx, "hub", s.joined.Server, "", s.joined.CertificateAuthorityData)
}

func bound(_ context.Context, s *sight) []diagnosis.Finding {
	c, err := s.store.Credential()
	switch {
	case err != nil:
		return found(Error, err.Error(), "the agent can't go on with its binding", "Hand it a new credential:  kubectl ainode bind NODE --to CONFIG")
	case c == nil && s.joined == nil:
		return nil
	case c == nil:
		return saw("bound to nothing")
	}
	text := fmt.Sprintf("to %s as %s, epoch %d", c.Server, c.Node, c.Epoch)
	if s.Clock.Now().After(c.Token.Expires) {
		return found(Error, fmt.Sprintf("%s; its token ended %s ago", text, s.since(c.Token.Expires)), "its pods run on, and the target refuses the agent",
			"Have a new one made:  kubectl ainode renew "+c.Node)
	}
	return saw(fmt.Sprintf("%s; its token is good for %s", text, c.Token.Expires.Sub(s.Clock.Now()).Round(time.Minute)))
}

func target(ctx context.Context, s *sight) []diagnosis.Finding {
	if s.credential == nil || s.joined != nil && s.joined.Server == s.credential.Server {
		return nil
	}
	return s.reach(ctx, "target", s.credential.Server, s.credential.TLSServerName, s.credential.CertificateAuthorityData)
}

// skew is how far the clocks may be apart: a Date header is exact to a second.
const skew = 5 * time.Second

// reach asks an API server for its version, without a credential: whatever it says,
// it is there, its certificate is good, and its answer is dated.
func (s *sight) reach(ctx context.Context, whose, server, name string, ca []byte) []diagnosis.Finding {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return found(Error, "the stored CA of the "+whose+" is damaged", "its certificate can't be checked", "Bind or join anew:  kubectl ainode list")
	}
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: name, MinVersion: tls.VersionTLS12},
		Proxy:           http.ProxyFromEnvironment,
	}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(server, "/")+"/version", nil)
	if err != nil {
		return found(Error, err.Error(), "")
	}
	asked := s.Clock.Now()
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return found(Error, fmt.Sprintf("the %s does not answer at %s: %v", whose, server, err), "the agent does what it was told last, and hears nothing new",
			"See how far it goes:  curl -vk "+server+"/version")
	}
	_ = answer.Body.Close()
	date, err := http.ParseTime(answer.Header.Get("Date"))
	if apart := asked.Sub(date); err == nil && apart.Abs() > skew {
		return found(Error, fmt.Sprintf("this machine's clock and the %s's are %s apart", whose, apart.Abs().Round(time.Second)),
			"certificates and tokens may count as not yet valid or as expired, and this node as lost", "Have it kept:  timedatectl set-ntp true")
	}
	return saw(server + " answers, its certificate is good, its clock is ours")
}

func agent(_ context.Context, s *sight) []diagnosis.Finding {
	switch {
	case s.running:
		return saw("it runs")
	case s.joined == nil:
		return nil // joined has said what is next
	}
	why := "the node counts as lost"
	if s.credential != nil {
		why += "; its pods run on, and nobody looks after them"
	}
	return found(Error, "no agent runs with "+string(s.Config.StateDir), why, "Start it:  systemctl enable --now ainode-agent", "See why it ended:  journalctl -u ainode-agent -n 50")
}

// port is the kubelet API's. Bound, the agent answers there; else it must be free.
func port(ctx context.Context, s *sight) []diagnosis.Finding {
	at := strconv.Itoa(s.Config.Port)
	address := s.Config.NodeIP
	if s.credential != nil && s.credential.Address != "" {
		address = s.credential.Address // chosen at bind
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(address, at))
	if err == nil {
		_ = listener.Close()
	}
	serves := s.running && s.credential != nil
	switch {
	case err == nil && serves:
		return found(Warning, "nobody listens on port "+at, "logs and exec of its pods do not work; just bound, it waits for its certificate",
			"See what the agent says:  journalctl -u ainode-agent -n 50")
	case err == nil:
		return saw(at + " is free")
	case errors.Is(err, unix.EADDRINUSE) && serves:
		return saw(at + " is served")
	case errors.Is(err, unix.EADDRINUSE):
		return found(Error, "port "+at+" is taken by another program", "the agent needs it for logs and exec when it is bound; a kubelet that runs here must go",
			"See whose it is:  ss -ltnp 'sport = :"+at+"'")
	default:
		return found(Warning, fmt.Sprintf("port %s can't be tried: %v", at, err), "")
	}
}
