import { get, base, type State, type Usage } from './api';

export const state: State = JSON.parse(document.getElementById('state')!.textContent!);

// What the page knows of itself.
export const ui = {
  connected: true,
  closed: false,
  search: '',
  sort: localStorage.getItem('sort') ?? 'used',
  list: !!localStorage.getItem('list'), // desktops, rather than cards
  usage: new Map<string, { cpu: number; memory: number; disk?: number }>(),
};

let draw = () => {};
let due = false;
export function drawer(f: () => void) { draw = f; }
// redraw draws once, however often it is called before that.
export function redraw() {
  if (due) return;
  due = true;
  const run = () => { if (due) { due = false; draw(); } };
  requestAnimationFrame(run);
  setTimeout(run, 100); // a page that is hidden has no frames
}

export interface Route { view: string; id: string; query: URLSearchParams }
export function route(): Route {
  const [path, query] = location.hash.replace(/^#\/?/, '').split('?');
  const [view, ...rest] = (path ?? '').split('/');
  return { view: view || 'library', id: decodeURIComponent(rest.join('/')), query: new URLSearchParams(query ?? '') };
}
export function go(path: string) { location.hash = '#/' + path; }

export function listen() {
  let events: EventSource | undefined;
  const open = () => {
    events = new EventSource(base + 'api/events');
    events.onopen = () => { ui.connected = true; redraw(); };
    events.onerror = () => {
      ui.connected = false;
      redraw();
      if (events!.readyState === EventSource.CLOSED && !ui.closed) setTimeout(open, 1000);
    };
    events.addEventListener('state', (e) => { Object.assign(state, JSON.parse(e.data)); redraw(); });
    for (const topic of ['desktops', 'sessions', 'images', 'jobs', 'terminals'] as const)
      events.addEventListener(topic, (e) => { state[topic] = JSON.parse(e.data); redraw(); });
  };
  open();
  addEventListener('pagehide', () => events?.close());
  addEventListener('pageshow', (e) => { if (e.persisted) open(); });
}

// What machines take is asked for while somebody looks and something runs.
let last: Usage | undefined;
export async function measure() {
  const running = state.desktops.some((d) => d.running) || state.sessions.some((s) => s.state === 'running');
  if (!running || document.hidden || ui.closed || !ui.connected) { last = undefined; return; }
  try {
    const u = await get<Usage>('usage');
    const seconds = last ? (Date.parse(u.at) - Date.parse(last.at)) / 1000 : 0;
    for (const id in u.machines) {
      const now = u.machines[id]!, before = last?.machines[id];
      ui.usage.set(id, { cpu: before && seconds > 0 ? Math.max(0, (now.cpu_seconds - before.cpu_seconds) / seconds) : NaN, memory: now.memory_bytes, disk: now.used_bytes });
    }
    last = u;
    redraw();
  } catch { /* the next one may do */ }
}
