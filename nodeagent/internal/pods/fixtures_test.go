package pods

import "github.com/ainode/ainode/nodeagent/internal/podtest"

var testPod, asking, askingFor = podtest.Pod, podtest.Asking, podtest.AskingFor
