// The player runs beside the page, where the browser plays sound. It gets pieces of
// stereo with 16 bits, and plays silence where it has none.
declare const registerProcessor: (name: string, of: unknown) => void;
declare const sampleRate: number;
declare class AudioWorkletProcessor { readonly port: MessagePort }

// So much is gathered before it begins, and no more is kept: what is later than that is
// better left out.
const begin = sampleRate * 0.06, most = sampleRate * 0.4;

class Player extends AudioWorkletProcessor {
  queue: Int16Array[] = [];
  at = 0; // in the first of the queue
  held = 0; // frames in all of it
  playing = false;
  constructor() {
    super();
    this.port.onmessage = (e: MessageEvent<Int16Array>) => {
      this.queue.push(e.data);
      this.held += e.data.length / 2;
      while (this.held > most && this.queue.length > 1) { this.held -= (this.queue.shift()!.length - this.at) / 2; this.at = 0; }
    };
  }
  process(_in: Float32Array[][], out: Float32Array[][]): boolean {
    const [left, right] = out[0] as [Float32Array, Float32Array];
    if (!this.playing && this.held < begin) return true;
    this.playing = true;
    for (let i = 0; i < left.length; i++) {
      const piece = this.queue[0];
      if (!piece) { this.playing = false; break; }
      left[i] = piece[this.at]! / 32768;
      right[i] = piece[this.at + 1]! / 32768;
      this.at += 2;
      this.held--;
      if (this.at >= piece.length) { this.queue.shift(); this.at = 0; }
    }
    return true;
  }
}
registerProcessor('player', Player);
