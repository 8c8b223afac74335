// Stands for CUDA's driver library where there is none: two cards, whose memory is the
// machine's.
#include <stdlib.h>
#include <string.h>

typedef unsigned long long pointer;

int cuInit(unsigned flags) { return flags ? 1 : 0; }
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
int cuDeviceGetUuid_v2(void *id, int device) { memset(id, 0xa0 + device, 16); return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { (void)device; *context = NULL; return 0; }
int cuCtxSetCurrent(void *context) { (void)context; return 0; }
int cuMemAlloc_v2(pointer *memory, size_t size) { *memory = (pointer)malloc(size); return 0; }
int cuMemsetD8_v2(pointer memory, unsigned char value, size_t size) { memset((void *)memory, value, size); return 0; }
int cuMemcpyDtoH_v2(void *to, pointer from, size_t size) { memcpy(to, (void *)from, size); return 0; }
