package cri_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ainode/ainode/nodeagent/internal/cri"
	"github.com/ainode/ainode/nodeagent/internal/cri/critest"
)

func TestHowCardsGetIn(t *testing.T) {
	t.Parallel()
	handlers := func(byDefault, more string) string {
		return `,"containerd":{"defaultRuntimeName":"` + byDefault + `","runtimes":{"runc":{"options":{"BinaryName":""}}` + more + `}}}`
	}
	nvidia := `,"nvidia":{"options":{"BinaryName":"/usr/bin/nvidia-container-runtime"}}`
	all := nvidia + `,"nvidia-cdi":{"options":{"BinaryName":"/usr/bin/nvidia-container-runtime.cdi"}},"nvidia-legacy":{"options":{"BinaryName":"/usr/bin/nvidia-container-runtime.legacy"}}`
	for name, c := range map[string]struct {
		runtime, version, config string
		want                     cri.Injection
	}{
		"1.6 has none":                    {"containerd", "1.6.20~ds1", `{"x":1` + handlers("runc", ""), cri.Injection{}},
		"1.6 with NVIDIA's runtime":       {"containerd", "1.6.20", `{"x":1` + handlers("runc", nvidia), cri.Injection{Handler: "nvidia"}},
		"1.7 as it comes":                 {"containerd", "v1.7.29", `{"enableCDI":false` + handlers("runc", ""), cri.Injection{}},
		"1.7 told to":                     {"containerd", "v1.7.29", `{"enableCDI":true` + handlers("nvidia", nvidia), cri.Injection{CDI: true, Handler: "nvidia", ByDefault: true}},
		"2.0 told not to":                 {"containerd", "2.0.1", `{"enableCDI":false` + handlers("runc", all), cri.Injection{Handler: "nvidia"}},
		"2.4 as it comes":                 {"containerd", "v2.4.2", `{"x":1` + handlers("runc", ""), cri.Injection{CDI: true}},
		"a build that names no version":   {"containerd", "unknown", `{"x":1` + handlers("runc", ""), cri.Injection{CDI: true}},
		"it tells nothing of itself":      {"containerd", "2.4.2", ``, cri.Injection{CDI: true}},
		"another runtime":                 {"cri-o", "1.34.0", ``, cri.Injection{CDI: true}},
		"under a name of somebody's own":  {"containerd", "1.6.20", `{"x":1` + handlers("gpu", `,"gpu":{"options":{"BinaryName":"/opt/nvidia-container-runtime.legacy"}}`), cri.Injection{Handler: "gpu", ByDefault: true}},
		"one that knows CDI names alone":  {"containerd", "1.6.20", `{"x":1` + handlers("runc", `,"nvidia-cdi":{"options":{"BinaryName":"/usr/bin/nvidia-container-runtime.cdi"}}`), cri.Injection{}},
		"a handler that is not NVIDIA's":  {"containerd", "1.6.20", `{"x":1` + handlers("kata", `,"kata":{"options":{}}`), cri.Injection{}},
		"another by default, CDI all the": {"containerd", "2.1.0", `{"x":1` + handlers("nvidia-legacy", all), cri.Injection{CDI: true, Handler: "nvidia", ByDefault: true}},
	} {
		settings := cri.ReadSettings(&runtimeapi.VersionResponse{RuntimeName: c.runtime, RuntimeVersion: c.version},
			&runtimeapi.StatusResponse{Info: map[string]string{"config": c.config}})
		require.Equal(t, c.want, settings.Injection(), name)
		require.Equal(t, c.want.CDI || c.want.Handler != "", settings.Injection().Injects(), name)
	}
}

// What containerd really tells.
func TestSettingsOfContainerd(t *testing.T) {
	t.Parallel()
	program, _ := critest.Wrapped(t, "nvidia-container-runtime")
	handlers := map[string]string{"nvidia": program}
	for name, c := range map[string]struct {
		setup critest.Setup
		want  cri.Injection
	}{
		"new": {critest.Setup{Handlers: handlers, Default: "nvidia"}, cri.Injection{CDI: true, Handler: "nvidia", ByDefault: true}},
		"old": {critest.Setup{Old: true, Handlers: handlers}, cri.Injection{Handler: "nvidia"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c2 := critest.StartAs(t, c.setup)
			settings, err := cri.AskSettings(t.Context(), c2.Runtime)
			require.NoError(t, err)
			require.Equal(t, c.want, settings.Injection())
			require.Equal(t, "containerd", settings.Name)
			require.Equal(t, []string{c2.CDIDir()}, settings.Containerd.CDISpecDirs)
			require.Equal(t, program, settings.Containerd.Handlers.ByName["nvidia"].Program())
			require.NotEmpty(t, settings.Containerd.RootDir)
			if c.setup.Old {
				c2.SetUp(t, critest.Setup{Old: true, CDI: true, Default: "runc"})
				settings, err = cri.AskSettings(t.Context(), c2.Runtime)
				require.NoError(t, err)
				require.Equal(t, cri.Injection{CDI: true}, settings.Injection())
			}
		})
	}
}
