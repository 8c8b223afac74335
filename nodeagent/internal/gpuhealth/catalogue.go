package gpuhealth

import "fmt"

// Class is what has to be done about a fault, from least to most.
type Class string

// The classes.
const (
	// Application: the pod's own fault or its alone; the card goes on.
	Application Class = "Application"
	// Reset: the card has to be reset, or at least to be left alone for a while.
	Reset Class = "Reset"
	// Drain: the machine has to boot before the card can be used again.
	Drain Class = "Drain"
	// Replace: somebody has to lay hands on the card.
	Replace Class = "Replace"
	// Recut is no fault: the card was cut into other MIG slices, or made whole, and
	// what a pod may hold is no more.
	Recut Class = "Recut"
)

// rank orders the classes.
func (c Class) rank() int {
	return map[Class]int{Application: 0, Reset: 1, Drain: 2, Replace: 3}[c]
}

// XID is an entry of the catalogue.
type XID struct {
	Class Class
	Text  string
}

// Catalogue is NVIDIA's Xid catalogue for Ampere and newer
// (https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html, read in
// November 2026), without the numbers that it calls unused. The class follows its
// column "Resolution Bucket (Immediate Action)":
//
//	IGNORE, RESTART_APP, UPDATE_SWFW, CHECK_UVM, WORKFLOW_XID_45      Application
//	RESET_GPU, WORKFLOW_XID_48, WORKFLOW_NVLINK_ERR, …_NVLINK5_ERR    Reset
//	RESTART_BM, RESTART_VM                                            Drain
//	CHECK_MECHANICALS, CONTACT_SUPPORT                                Replace
//
// 154 only announces what the driver then says of the card itself, and is followed
// by asking it. 171 and 172 come with a 48.
var Catalogue = catalogue()

func catalogue() map[uint64]XID {
	c := map[uint64]XID{}
	add := func(class Class, text string, numbers ...uint64) {
		for _, n := range numbers {
			c[n] = XID{class, text}
		}
	}
	add(Application, "the GPU stopped processing the application", 8, 43)
	add(Application, "invalid or corrupted push buffer stream", 11, 25, 32)
	add(Application, "graphics engine exception, mostly an illegal access by the application", 13)
	add(Application, "fault injected from user space", 14)
	add(Application, "GPU memory page fault, mostly an illegal access by the application", 31)
	add(Application, "driver firmware error", 37, 38)
	add(Application, "copy engine exception", 39, 40, 41, 70, 71, 72, 75, 76, 77, 85, 126, 127, 128, 129, 130, 131, 132, 133, 134, 135)
	add(Application, "graphics engine fault during a context switch", 44)
	add(Application, "the application was cleaned up, after its end or an earlier error", 45)
	add(Application, "video processor exception", 60)
	add(Application, "a row of GPU memory was remapped", 63)
	add(Application, "illegal access by the driver", 66, 67)
	add(Application, "video decoder exception", 68, 83, 84, 88, 89, 96, 97, 98)
	add(Application, "graphics engine class error", 69)
	add(Application, "vGPU start error", 78)
	add(Application, "corrupted data sent to the GPU", 80)
	add(Application, "JPEG engine error", 82, 99, 100, 101, 102, 103, 104, 105)
	add(Application, "optical flow engine exception", 86, 139)
	add(Application, "high rate of single-bit ECC errors", 92)
	add(Application, "InfoROM wear limit exceeded", 93)
	add(Application, "contained memory error", 94)
	add(Application, "test message", 106, 107)
	add(Application, "NVLink remote translation error", 108)
	add(Application, "corrected errors on the link to the CPU", 121)
	add(Application, "NVLink privilege error, mostly an illegal access by the application", 137)
	add(Application, "CUDA fast path error", 141)
	add(Application, "deep learning accelerator error", 152, 153)
	add(Application, "the recovery that the GPU needs has changed", 154)
	add(Application, "no resources left to retire", 157)
	add(Application, "non-data error on the link to the CPU", 159)
	add(Application, "a channel was retired", 160, 161)
	add(Application, "power smoothing has changed", 162, 163, 164, 165)

	add(Reset, "the GPU stopped processing", 46)
	add(Reset, "double-bit ECC error", 48)
	add(Reset, "internal micro-controller halt", 62)
	add(Reset, "a row of GPU memory could not be remapped", 64)
	add(Reset, "NVLink error", 74, 144, 145, 146, 147, 148, 149, 150, 155)
	add(Reset, "uncontained memory error", 95)
	add(Reset, "context switch timeout", 109)
	add(Reset, "security fault", 110)
	add(Reset, "the GPU's system processor does not answer", 119)
	add(Reset, "error of the GPU's system processor", 120)
	add(Reset, "NVLink training failed", 136)
	add(Reset, "unrecovered ECC error", 140)
	add(Reset, "GPU initialization error", 143)
	add(Reset, "a part of the GPU was retired", 156)
	add(Reset, "GPU fatal timeout", 158)
	add(Reset, "uncorrectable error of GPU memory", 171, 172)

	add(Drain, "GPU has fallen off the bus", 79)
	add(Drain, "key rotation error", 151)

	add(Replace, "auxiliary power is not connected to the GPU board", 54)
	add(Replace, "video encoder error", 142)
	return c
}

// ofInstance reports whether an error that the driver ascribes to one MIG instance
// (nvmlEventData_t, gpuInstanceId) is that instance's alone: what applications do,
// and engines of which each instance has its own, which stopped (46) or do not
// change contexts (109). The catalogue has memory, links, firmware and the bus be reset or
// drained as the whole card, so all slices share such errors.
func (x XID) ofInstance(number uint64) bool {
	return x.Class == Application || number == 46 || number == 109
}

// describe is the entry of a number; one that the catalogue lacks counts as Reset,
// since the driver reports only what it holds for critical.
func describe(number uint64) XID {
	if x, ok := Catalogue[number]; ok {
		return x
	}
	return XID{Reset, fmt.Sprintf("not in NVIDIA's catalogue as of 2026-11 (number %d)", number)}
}
