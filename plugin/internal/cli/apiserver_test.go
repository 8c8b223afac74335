package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/api/contract"
)

// serve lets kubectl's own packages, which speak HTTP, meet the target: discovery,
// reading one object, and the dry run of a pod with a webhook that says what the
// contract says.
func (w *fakeWorld) serve(dir string) (genericclioptions.RESTClientGetter, error) {
	mux := http.NewServeMux()
	answer := func(path string, value any) {
		mux.HandleFunc("GET "+path, func(rw http.ResponseWriter, _ *http.Request) { reply(rw, http.StatusOK, value) })
	}
	answer("/api", metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"}})
	apps := metav1.GroupVersionForDiscovery{GroupVersion: "apps/v1", Version: "v1"}
	answer("/apis", metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList"}, Groups: []metav1.APIGroup{
		{Name: "apps", Versions: []metav1.GroupVersionForDiscovery{apps}, PreferredVersion: apps},
	}})
	answer("/api/v1", resources("v1", "Pod", "pods", "Service", "services"))
	answer("/apis/apps/v1", resources("apps/v1", "Deployment", "deployments"))
	mux.HandleFunc("GET /api/v1/namespaces/{namespace}/{resource}/{name}", w.get(""))
	mux.HandleFunc("GET /apis/{group}/v1/namespaces/{namespace}/{resource}/{name}", w.get("apps"))
	mux.HandleFunc("GET /api/v1/{resource}/{name}", w.get("")) // the builder asks whether a namespace is there
	mux.HandleFunc("POST /api/v1/namespaces/{namespace}/pods", createPod)
	server := httptest.NewServer(mux)
	w.busy.Go(func() { <-w.ctx.Done(); server.Close() })

	config := filepath.Join(dir, ".kubeconfig")
	text := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config", "current-context": "t", "clusters": [{"name": "t", "cluster": {"server": %q}}],
		"contexts": [{"name": "t", "context": {"cluster": "t", "namespace": "team"}}]}`, server.URL)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	flags := genericclioptions.NewConfigFlags(false)
	flags.KubeConfig, flags.CacheDir = ptr.To(config), ptr.To(filepath.Join(dir, ".cache"))
	return flags, nil
}

func resources(groupVersion string, kindsAndNames ...string) metav1.APIResourceList {
	list := metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList"}, GroupVersion: groupVersion}
	for i := 0; i < len(kindsAndNames); i += 2 {
		list.APIResources = append(list.APIResources, metav1.APIResource{
			Kind: kindsAndNames[i], Name: kindsAndNames[i+1], Namespaced: true, Verbs: []string{"get", "list", "create"},
		})
	}
	return list
}

func (w *fakeWorld) get(group string) http.HandlerFunc {
	gv := schema.GroupVersion{Group: group, Version: "v1"}
	return func(rw http.ResponseWriter, r *http.Request) {
		o, err := w.target.Tracker().Get(gv.WithResource(r.PathValue("resource")), r.PathValue("namespace"), r.PathValue("name"))
		if err != nil {
			refuse(rw, err)
			return
		}
		rw.Header().Set("Content-Type", "application/json")
		if err := scheme.Codecs.LegacyCodec(gv).Encode(o, rw); err != nil {
			refuse(rw, err)
		}
	}
}

func createPod(rw http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(r.Body)
	if err != nil || r.URL.Query().Get("dryRun") != metav1.DryRunAll {
		refuse(rw, apierrors.NewBadRequest("only dry runs are served here"))
		return
	}
	pod, err := contract.Decode(raw)
	if err != nil {
		refuse(rw, apierrors.NewBadRequest(err.Error()))
		return
	}
	var verdict contract.Verdict
	if contract.Targets(pod, contract.Namespace{}) {
		if verdict, err = (contract.Request{Pod: pod}).Evaluate(); err != nil {
			refuse(rw, apierrors.NewBadRequest(err.Error()))
			return
		}
	}
	if verdict.Denied() {
		denied := apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, pod.Metadata.Name, nil)
		denied.ErrStatus.Message = `admission webhook "pods.webhook" denied the request: ` + verdict.Refusal()
		refuse(rw, denied)
		return
	}
	for _, text := range verdict.Warnings() {
		if header, err := utilnet.NewWarningHeader(299, "-", text); err == nil {
			rw.Header().Add("Warning", header)
		}
	}
	var u unstructured.Unstructured
	if err := u.UnmarshalJSON(raw); err != nil {
		refuse(rw, err)
		return
	}
	reply(rw, http.StatusCreated, u.Object)
}

func refuse(rw http.ResponseWriter, err error) {
	var status apierrors.APIStatus = apierrors.NewInternalError(err)
	if s, ok := err.(apierrors.APIStatus); ok {
		status = s
	}
	s := status.Status()
	s.Kind, s.APIVersion = "Status", "v1"
	reply(rw, int(s.Code), s)
}

func reply(rw http.ResponseWriter, code int, value any) {
	rw.Header().Set("Content-Type", "application/json")
	rw.WriteHeader(code)
	_ = json.NewEncoder(rw).Encode(value)
}
