//go:build darwin && cgo

package vz

/*
#cgo LDFLAGS: -lobjc -framework Foundation
#include <stdlib.h>

// The Objective-C runtime and Foundation, without their headers: this is plain C.
// objc_msgSend is called as the method that it finds is declared.
extern void *objc_getClass(const char *);
extern void *sel_registerName(const char *);
extern void *objc_autoreleasePoolPush(void);
extern void objc_autoreleasePoolPop(void *);
extern void *send(void *, void *) __asm__("_objc_msgSend");
extern void *send_object(void *, void *, void *) __asm__("_objc_msgSend");
extern void *send_text(void *, void *, const char *) __asm__("_objc_msgSend");
extern void *send_options(void *, void *, unsigned long long, void *) __asm__("_objc_msgSend");

// NSActivityUserInitiatedAllowingIdleSystemSleep
#define USER_INITIATED (0x00FFFFFFULL & ~(1ULL << 20))

static void *process_info(void) {
	return send(objc_getClass("NSProcessInfo"), sel_registerName("processInfo"));
}

static void *begin_activity(const char *reason) {
	void *pool = objc_autoreleasePoolPush();
	void *text = send_text(objc_getClass("NSString"), sel_registerName("stringWithUTF8String:"), reason);
	void *token = send_options(process_info(), sel_registerName("beginActivityWithOptions:reason:"), USER_INITIATED, text);
	token = send(token, sel_registerName("retain"));
	objc_autoreleasePoolPop(pool);
	return token;
}

static void end_activity(void *token) {
	void *pool = objc_autoreleasePoolPush();
	send_object(process_info(), sel_registerName("endActivity:"), token);
	send(token, sel_registerName("release"));
	objc_autoreleasePoolPop(pool);
}
*/
import "C"

import "unsafe"

// activity keeps App Nap away: it slows down timers and I/O of a process whose app, a
// terminal or an editor, is hidden (lima-vm/lima#29). A Mac with nothing to do still
// sleeps.
func (appleFramework) activity() (end func()) {
	reason := C.CString("a virtual machine runs")
	defer C.free(unsafe.Pointer(reason))
	token := C.begin_activity(reason)
	return func() { C.end_activity(token) }
}
