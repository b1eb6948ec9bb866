package qemu

import "time"

func readTSC() uint64

// measureTSC returns the frequency of this CPU's time stamp counter, in
// kHz. It takes 50 ms.
func measureTSC() int64 {
	const interval = 50 * time.Millisecond
	start, from := time.Now(), readTSC()
	<-time.After(interval)
	elapsed, ticks := time.Since(start), readTSC()-from
	return int64(float64(ticks) / elapsed.Seconds() / 1000)
}
