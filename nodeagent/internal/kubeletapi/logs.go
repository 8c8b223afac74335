package kubeletapi

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cri-client/pkg/logs"
	"k8s.io/klog/v2"
)

func (s *Server) pods(w http.ResponseWriter, r *http.Request) {
	list := corev1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}}
	for _, p := range s.o.Pods.Pods() {
		list.Items = append(list.Items, *p)
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(list); err != nil {
		klog.FromContext(r.Context()).V(2).Info("Pods not sent", "cause", err)
	}
}

func (s *Server) containerLogs(w http.ResponseWriter, r *http.Request) {
	ref := refOf(r)
	if pod, _ := s.container(w, ref); pod == nil {
		return
	}
	options, previous, which, err := logOptions(r.URL.Query(), s.o.Clock.Now())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	path, err := s.o.Pods.LogPath(ref.namespace, ref.name, ref.uid, ref.container, previous)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	id := ""
	if options.Follow {
		if id, err = s.o.Pods.ContainerID(ref.namespace, ref.name, ref.uid, ref.container); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	out := &flushed{w: w, rc: http.NewResponseController(w)}
	stdout, stderr := io.Writer(out), io.Writer(out)
	switch which {
	case corev1.LogStreamStdout:
		stderr = nil
	case corev1.LogStreamStderr:
		stdout = nil
	}
	if options.Follow {
		// A container may be silent for long: who follows it learns at once that it is there.
		_, _ = out.Write(nil)
	}
	if err := logs.ReadLogs(r.Context(), path, id, options, s.o.Runtime, stdout, stderr); err != nil && r.Context().Err() == nil {
		if !out.wrote {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		klog.FromContext(r.Context()).Error(err, "Logs broke off", "pod", ref.String(), "container", ref.container)
	}
}

// logOptions reads the query that the API server makes of PodLogOptions.
func logOptions(q url.Values, now time.Time) (*logs.LogOptions, bool, string, error) {
	var o corev1.PodLogOptions
	number := func(key string, least int64, to **int64) error {
		text := q.Get(key)
		if text == "" {
			return nil
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < least {
			return fmt.Errorf("%s: want a number of at least %d, got %q", key, least, text)
		}
		*to = &n
		return nil
	}
	for _, err := range []error{
		number("tailLines", 0, &o.TailLines), number("limitBytes", 1, &o.LimitBytes), number("sinceSeconds", 1, &o.SinceSeconds),
	} {
		if err != nil {
			return nil, false, "", err
		}
	}
	if text := q.Get("sinceTime"); text != "" {
		t, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return nil, false, "", fmt.Errorf("sinceTime: %q is no time", text)
		}
		o.SinceTime = &metav1.Time{Time: t}
	}
	which := q.Get("stream")
	switch which {
	case "":
		which = corev1.LogStreamAll
	case corev1.LogStreamAll, corev1.LogStreamStdout, corev1.LogStreamStderr:
	default:
		return nil, false, "", fmt.Errorf("stream: want %s, %s or %s, got %q",
			corev1.LogStreamAll, corev1.LogStreamStdout, corev1.LogStreamStderr, which)
	}
	flag := func(key string) bool { b, _ := strconv.ParseBool(q.Get(key)); return b }
	o.Follow, o.Timestamps = flag("follow"), flag("timestamps")
	read := &logs.LogOptions{TailLines: o.TailLines, LimitBytes: o.LimitBytes, Follow: o.Follow, Timestamp: o.Timestamps}
	switch {
	case o.SinceSeconds != nil:
		read.Since = now.Add(-time.Duration(*o.SinceSeconds) * time.Second)
	case o.SinceTime != nil:
		read.Since = o.SinceTime.Time
	}
	return read, flag("previous"), which, nil
}

// flushed sends every line at once, for followers.
type flushed struct {
	w     io.Writer
	rc    *http.ResponseController
	wrote bool
}

func (f *flushed) Write(p []byte) (int, error) {
	f.wrote = true
	n, err := f.w.Write(p)
	if err != nil {
		return n, err // ReadLogs looks at it
	}
	_ = f.rc.Flush()
	return n, nil
}
