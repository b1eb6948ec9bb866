// What a desktop plays.
import { base, socket } from './api';

export interface Sound { close(): void }

// play plays what a desktop does, until it is closed; heard is told when something other
// than silence comes, and failed when nothing will.
export function play(id: string, told: { heard(): void; failed(why: string): void }): Sound {
  const ctx = new AudioContext({ sampleRate: 48000, latencyHint: 'interactive' });
  let ws: WebSocket | undefined, over = false;
  // A browser plays nothing before somebody has touched the page.
  const wake = () => { ctx.resume().catch(() => {}); };
  addEventListener('pointerdown', wake);
  addEventListener('keydown', wake, true);
  const start = async () => {
    await ctx.audioWorklet.addModule(base + 'assets/player.js');
    const player = new AudioWorkletNode(ctx, 'player', { numberOfInputs: 0, outputChannelCount: [2] });
    player.connect(ctx.destination);
    const connect = () => {
      ws = socket(`desktops/${id}/sound`);
      ws.onmessage = (e) => {
        if (typeof e.data === 'string') return; // its format, which is this one
        const piece = new Int16Array(e.data, 0, (e.data.byteLength >> 2) * 2);
        if (piece.some((x) => x !== 0)) told.heard();
        if (ctx.state === 'running') player.port.postMessage(piece, [piece.buffer]);
      };
      ws.onclose = (e) => {
        if (over) return;
        if (e.code === 1008 || e.code === 1011) told.failed(e.reason);
        else setTimeout(() => over || connect(), 1000);
      };
    };
    if (!over) connect();
  };
  start().catch((e) => told.failed(String(e)));
  return { close: () => { over = true; removeEventListener('pointerdown', wake); removeEventListener('keydown', wake, true); ws?.close(); ctx.close().catch(() => {}); } };
}
