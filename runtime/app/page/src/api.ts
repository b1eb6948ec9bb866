// The app's API, as docs/app.md describes it.

export interface Host { version: string; home: string; os: string; arch: string; cpus: number; memory_bytes: number; free_bytes: number; max_cpus: number; no_desktops?: string; emulated?: boolean }
export interface Phase { name: string; at_ms: number }
export interface Boot { began: string; phases: Phase[]; ended?: string; error?: string }
export interface Desktop {
  id: string; name: string; family: string; variant: string; arch: string; memory_bytes: number; cpus: number; disk_bytes: number; used_bytes: number;
  network: string; iso?: string; drivers?: string; secure_boot?: boolean; tpm?: boolean; created: string; last_booted?: string; running: boolean; boot?: Boot; path: string; picture?: number; error?: string;
}
export interface Rule { protocol: string; host: number; guest: number }
export interface Session {
  sid: string; name?: string; image: string; state: string; started: string; cpus: number; memory_bytes: number; network: boolean;
  active_execs: number; forwards: Rule[]; message?: string; console?: string;
}
export interface Image { name: string; arch: string; created: string; source: string; description?: string; size_bytes: number; command?: string[]; ports?: string[]; error?: string }
export interface Job { id: string; kind: string; subject: string; began: string; state: string; step?: string; done: number; total: number; result?: string; error?: string }
export interface Terminal { id: string; sid: string; ended: boolean; exit?: string }
export interface State { host: Host; desktops: Desktop[]; sessions: Session[]; images: Image[]; jobs: Job[]; terminals: Terminal[]; media?: Medium[] }
export interface System { id: string; name: string; osFamily: string; osVariant: string; architecture: string; url: string; memoryBytes?: number; diskBytes?: number; note?: string }
export interface Medium { file: string; name: string; kind: string; size_bytes: number; system?: string; suggested: string; arch?: string; reason?: string }
export interface Hardware { no_tpm?: string; no_secure_boot?: string }
export interface Listing { dir: string; parent?: string; files: { name: string; dir?: boolean; size_bytes?: number }[]; more?: boolean }
export interface Load { cpu_seconds: number; memory_bytes: number; used_bytes?: number; active_execs?: number }
export interface Usage { at: string; machines: Record<string, Load> }
export interface Process { id: string; pid: number; args: string[]; detached: boolean; age: number; exit?: { code: number } }
export interface Denied { time: string; protocol: string; destination: string; name?: string; reason: string; count: number }
export interface Inside { processes: Process[]; network: { metrics: { rx_bytes: number; tx_bytes: number }; denied: Denied[] | null; more?: number } | null; forwards: Rule[]; ports?: string[] }
export interface Release { id: string; description: string; version: string; size_bytes: number; download_bytes: number }

// The page's address ends in a slash, and has the token before it.
export const base = location.pathname;

async function answer(r: Response): Promise<any> {
  const text = await r.text();
  let v: any = null;
  try { v = text ? JSON.parse(text) : null; } catch { /* none of the app's */ }
  if (!r.ok) throw new Error(v?.error ?? r.statusText);
  return v;
}
async function call<T>(method: string, path: string, body?: BodyInit): Promise<T> {
  let r: Response;
  try { r = await fetch(base + 'api/' + path, { method, body }); }
  catch { throw new Error('The app does not answer: it has ended, or is about to.'); }
  return answer(r);
}
export const get = <T>(path: string) => call<T>('GET', path);
export const post = <T = unknown>(path: string, body: unknown = {}) => call<T>('POST', path, JSON.stringify(body));
export const remove = <T = unknown>(path: string) => call<T>('DELETE', path);
export const put = <T = unknown>(path: string, file: Blob) => call<T>('PUT', path, file);
export function socket(path: string): WebSocket {
  const ws = new WebSocket('ws://' + location.host + base + 'api/' + path);
  ws.binaryType = 'arraybuffer';
  return ws;
}
