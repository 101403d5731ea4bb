/* CUDA's runtime as far as autograd asks it on a machine without a GPU: one device, whose streams and events are names.

   Preloaded into a Python that works with fake tensors: they have shapes and a device, and no kernel is ever launched.
   Whatever is not here (memory, copies, kernels) stays the real runtime's, which refuses without a GPU. Its name on
   loading is that of the driver, which libtorch asks whether the device is in use.

   gcc -shared -fPIC -Wl,-soname,libcuda.so.1 -o libcuda.so.1 no_gpu_runtime.c */

#include <stddef.h>
#include <string.h>

int cudaGetDeviceCount(int *count) { *count = 1; return 0; }
int cudaGetDevice(int *device) { *device = 0; return 0; }
int cudaSetDevice(int device) { return 0; }
int cudaGetLastError(void) { return 0; }
int cudaPeekAtLastError(void) { return 0; }

int cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    if (least) *least = 0;
    if (greatest) *greatest = 0;
    return 0;
}

int cudaEventCreateWithFlags(void **event, unsigned flags) { *event = (void *)8; return 0; }
int cudaEventRecord(void *event, void *stream) { return 0; }
int cudaEventRecordWithFlags(void *event, void *stream, unsigned flags) { return 0; }
int cudaEventQuery(void *event) { return 0; }
int cudaEventDestroy(void *event) { return 0; }
int cudaStreamWaitEvent(void *stream, void *event, unsigned flags) { return 0; }
int cudaStreamIsCapturing(void *stream, int *status) { *status = 0; return 0; }

int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
    if (flags) *flags = 0;
    *active = 1;
    return 0;
}

int cuGetErrorString(int error, const char **text) { *text = "there is no GPU"; return 0; }
