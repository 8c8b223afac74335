// Asks CUDA's driver library, found when it runs, which cards there are, and uses them.
//
//	cuda list    a line for each: its UUID, and that it gave back what was written to it
//	cuda work    keeps the first busy until it is killed
//	cuda fault   does on the first what no application may
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned long long pointer;

static void *library;

static void *find(const char *name) {
	void *f = dlsym(library, name);
	if (!f) { fprintf(stderr, "libcuda.so.1 lacks %s\n", name); exit(3); }
	return f;
}

// call calls a function of the library, whose arguments are words.
#define call(name, types, ...) do { \
	int result = ((int (*) types)find(name))(__VA_ARGS__); \
	if (result) { fprintf(stderr, "%s: error %d\n", name, result); exit(4); } \
} while (0)

static void open_card(int device) {
	void *context;
	call("cuDevicePrimaryCtxRetain", (void **, int), &context, device);
	call("cuCtxSetCurrent", (void *), context);
}

static void list(int device) {
	unsigned char id[16];
	// v2 names the slice where the device is one.
	call(dlsym(library, "cuDeviceGetUuid_v2") ? "cuDeviceGetUuid_v2" : "cuDeviceGetUuid", (void *, int), id, device);
	open_card(device);
	const size_t size = 64 << 20;
	unsigned char *back = malloc(size);
	pointer memory;
	call("cuMemAlloc_v2", (pointer *, size_t), &memory, size);
	call("cuMemsetD8_v2", (pointer, unsigned char, size_t), memory, 0x5a, size);
	call("cuMemcpyDtoH_v2", (void *, pointer, size_t), back, memory, size);
	for (size_t i = 0; i < size; i++)
		if (back[i] != 0x5a) { fprintf(stderr, "byte %zu came back as %02x\n", i, back[i]); exit(5); }
	for (int i = 0; i < 16; i++)
		printf(i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", id[i]);
	printf(" works\n");
}

static void work(void) {
	const size_t size = 1u << 30;
	pointer memory;
	open_card(0);
	call("cuMemAlloc_v2", (pointer *, size_t), &memory, size);
	printf("busy\n");
	fflush(stdout);
	for (;;) {
		for (int i = 0; i < 100; i++)
			call("cuMemsetD8_v2", (pointer, unsigned char, size_t), memory, i, size);
		call("cuCtxSynchronize", (void), );
	}
}

static void fault(void) {
	const char *code =
		".version 7.0\n.target sm_80\n.address_size 64\n"
		".visible .entry wrong() {\n"
		" .reg .b64 %to; .reg .b32 %what;\n"
		" mov.u64 %to, 16; mov.u32 %what, 1; st.global.u32 [%to], %what; ret;\n}\n";
	void *module, *function;
	open_card(0);
	call("cuModuleLoadData", (void **, const void *), &module, code);
	call("cuModuleGetFunction", (void **, void *, const char *), &function, module, "wrong");
	call("cuLaunchKernel", (void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **, void **),
		function, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL);
	int result = ((int (*)(void))find("cuCtxSynchronize"))();
	printf("error %d\n", result);
	exit(result == 0);
}

int main(int argc, char **argv) {
	int count = 0;
	library = dlopen("libcuda.so.1", RTLD_NOW);
	if (!library) { fprintf(stderr, "%s\n", dlerror()); return 2; }
	call("cuInit", (unsigned), 0);
	if (argc == 2 && !strcmp(argv[1], "work")) work();
	if (argc == 2 && !strcmp(argv[1], "fault")) fault();
	call("cuDeviceGetCount", (int *), &count);
	for (int i = 0; i < count; i++) list(i);
	return 0;
}
