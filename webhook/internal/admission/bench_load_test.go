package admission

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// load sends one review over and over, on each connection the next one when the
// answer is there. It speaks HTTP/1.1, as the API server does to webhooks behind
// a Service (kubernetes/kubernetes#75791), and is lean, so that what is measured
// is the server.
type load struct {
	request []byte
	conns   []*tls.Conn
}

// pace is what one run of a load saw: requests a second, and milliseconds.
type pace struct{ rate, p50, p99 float64 }

func dial(b *testing.B, server *httptest.Server, review []byte, conns int) *load {
	b.Helper()
	address := server.Listener.Addr().String()
	l := &load{request: fmt.Appendf(nil, "POST %s?timeout=3s HTTP/1.1\r\nHost: %s\r\nUser-Agent: kube-apiserver-admission\r\n"+
		"Accept: application/json, */*\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		pathMutatePods, address, len(review), review)}
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	for range conns {
		conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: roots, NextProtos: []string{"http/1.1"}})
		require.NoError(b, err)
		l.conns = append(l.conns, conn)
	}
	return l
}

func (l *load) close() {
	for _, c := range l.conns {
		c.Close()
	}
}

// run drives all connections for the time given.
func (l *load) run(b *testing.B, d time.Duration) pace {
	b.Helper()
	var group sync.WaitGroup
	took := make([][]time.Duration, len(l.conns))
	failures := make([]error, len(l.conns))
	began := time.Now()
	for i, conn := range l.conns {
		group.Go(func() { took[i], failures[i] = l.drive(conn, began.Add(d)) })
	}
	group.Wait()
	elapsed := time.Since(began)
	for _, err := range failures {
		require.NoError(b, err)
	}
	all := slices.Concat(took...)
	slices.Sort(all)
	at := func(q float64) float64 { return float64(all[int(q*float64(len(all)-1))].Microseconds()) / 1e3 }
	return pace{rate: float64(len(all)) / elapsed.Seconds(), p50: at(.5), p99: at(.99)}
}

func (l *load) drive(conn *tls.Conn, until time.Time) ([]time.Duration, error) {
	took := make([]time.Duration, 0, 1<<15)
	reader := bufio.NewReader(conn)
	for began := time.Now(); began.Before(until); {
		if _, err := conn.Write(l.request); err != nil {
			return nil, err
		}
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			return nil, err
		}
		if _, err := io.Copy(io.Discard, response.Body); err != nil {
			return nil, err
		}
		if response.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("the webhook answered %s", response.Status)
		}
		now := time.Now()
		took = append(took, now.Sub(began))
		began = now
	}
	return took, nil
}
