import { h, type Child } from './dom';
import { base, get, post, put, remove, type Inside, type Session } from './api';
import { state, go, redraw, ui } from './store';
import { ago, load, quote, size, span } from './format';
import { icon } from './icons';
import { act, copy, failed, menu, toast } from './dialogs';
import { sessionName } from './library';
import type { Shown } from './terminal';

const view = { sid: '', tab: '', inside: null as Inside | null, panel: innerWidth > 900, forward: '', path: '/root/' };

async function look(sid: string) {
  try {
    const inside = await get<Inside>('sessions/' + sid);
    if (view.sid === sid) { view.inside = inside; redraw(); }
  } catch { /* it is ending */ }
}
// What happens in the guest is told by nobody: while somebody looks, it is asked for.
setInterval(() => { if (view.sid && view.panel && !document.hidden && location.hash.includes(view.sid)) look(view.sid); }, 3000);

export const openTerminal = async (sid: string) => {
  const t = await post<{ id: string }>(`sessions/${sid}/terminals`, {});
  view.tab = t.id;
  // It is told by an event, too, which may come later.
  if (!state.terminals.some((x) => x.id === t.id)) state.terminals.push({ id: t.id, sid, ended: false });
  redraw();
  await look(sid);
};

function mountTerminal(id: string) {
  return (el: HTMLElement) => {
    let shown: Shown | undefined, over = false;
    import('./terminal').then(({ show }) => { if (!over) shown = show(el, id, () => redraw()); }, failed);
    return () => { over = true; shown?.close(); };
  };
}

async function send(s: Session, files: FileList | File[]) {
  const dir = view.path.endsWith('/') ? view.path : view.path.replace(/[^/]*$/, '');
  for (const f of files) {
    try { await put(`sessions/${s.sid}/files?path=${encodeURIComponent(dir + f.name)}`, f); toast(`${f.name} is in ${dir}`); }
    catch (e) { failed(e); }
  }
}

export function sessionDrop(sid: string, files: FileList) {
  const s = state.sessions.find((x) => x.sid === sid);
  if (s) send(s, files);
}

// at is where a file of the guest is had, and landed what it is called then: a directory is
// an archive.
const at = (s: Session) => `${base}api/sessions/${s.sid}/files?path=${encodeURIComponent(view.path)}`;
const landed = (path: string) => (path.endsWith('/') ? (path.split('/').filter(Boolean).pop() ?? 'root') + '.zip' : path.split('/').pop()!);
async function fetchFile(s: Session) {
  const r = await fetch(at(s));
  if (!r.ok) throw new Error((await r.json()).error);
  const a = document.createElement('a');
  a.href = URL.createObjectURL(await r.blob());
  a.download = /filename="?([^";]+)/.exec(r.headers.get('Content-Disposition') ?? '')?.[1] ?? 'file';
  a.click();
  setTimeout(() => URL.revokeObjectURL(a.href), 60000);
}

export function sessionView(id: string): Child {
  const s = state.sessions.find((x) => x.sid === id || x.name === id);
  if (!s) return h('main', { class: 'wizard', key: 'gone' }, h('header', null, h('a', { class: 'button ghost', href: '#/library', 'aria-label': 'Back to the library' }, icon('back')), h('h1', null, 'No such session')), h('p', { class: 'muted' }, 'It was stopped.'));
  if (view.sid !== s.sid) { Object.assign(view, { sid: s.sid, tab: '', inside: null }); look(s.sid); }
  const tabs = state.terminals.filter((t) => t.sid === s.sid);
  if (!tabs.some((t) => t.id === view.tab)) view.tab = tabs[tabs.length - 1]?.id ?? '';
  const u = ui.usage.get(s.sid), running = s.state === 'running';
  return h('main', { class: 'session' + (view.panel ? ' with-panel' : ''), key: 'session' + s.sid },
    h('header', { class: 'bar' }, h('a', { class: 'button ghost', href: '#/library', 'aria-label': 'Back to the library' }, icon('back')), h('h1', { title: sessionName(s) }, sessionName(s)),
      h('span', { class: 'state' }, h('span', { class: 'dot' + (running ? ' on' : ' bad'), 'aria-hidden': 'true' }), s.state), h('span', { class: 'muted wide-only' }, s.image, ' · ', s.cpus, ' CPUs · ', u ? load(u) + ' of ' : '', size(s.memory_bytes)),
      h('span', { class: 'grow' }),
      h('button', { class: 'ghost', 'aria-label': 'More', 'aria-haspopup': 'menu', onclick: (e: any) => menu(e.currentTarget, [
        { name: 'Copy lumina exec …', run: () => copy(`lumina exec --pty ${s.name ? quote(s.name) : s.sid} sh`, 'Command') },
        { name: 'Copy lumina run …', run: () => copy(`lumina run --image ${quote(s.image)} 'uname -a'`, 'Command') },
        { name: 'Copy the identifier', run: () => copy(s.sid, 'Identifier') },
      ]) }, icon('more')),
      h('button', { class: 'ghost', title: 'Processes, forwards, files, network', 'aria-label': 'Inside', 'aria-pressed': view.panel ? 'true' : 'false', onclick: () => { view.panel = !view.panel; redraw(); } }, icon('log'), h('span', { class: 'wide-only' }, 'Inside')),
      h('button', { onclick: act(async () => { await remove('sessions/' + s.sid); go('library'); }) }, icon('stop'), running ? 'Stop' : 'Remove')),
    h('div', { class: 'inner' },
      h('div', { class: 'terms' },
        h('div', { class: 'tabs', role: 'group', 'aria-label': 'Terminals' }, tabs.map((t, i) => h('span', { class: 'tab' + (t.id === view.tab ? ' active' : ''), key: t.id }, h('button', { class: 'ghost', 'aria-pressed': t.id === view.tab ? 'true' : 'false', onclick: () => { view.tab = t.id; redraw(); } }, 'Terminal ', i + 1, t.ended ? h('span', { class: 'muted' }, ' ended') : null), h('button', { class: 'ghost', 'aria-label': `Close terminal ${i + 1}`, onclick: act(() => remove('terminals/' + t.id)) }, icon('close')))),
          running && tabs.length ? h('button', { class: 'ghost', 'aria-label': 'New terminal', title: 'New terminal', onclick: act(() => openTerminal(s.sid)) }, icon('plus')) : null),
        s.message ? h('div', { class: 'wrong box', role: 'alert' }, h('b', null, s.message), s.console ? h('pre', { class: 'serial', tabindex: '0' }, s.console.slice(-4000)) : null) : null,
        view.tab ? h('div', { class: 'term', key: 'term' + view.tab, mount: mountTerminal(view.tab) }) : running ? h('div', { class: 'empty' }, h('strong', null, 'No terminal is open.'), h('p', null, h('button', { class: 'primary', onclick: act(() => openTerminal(s.sid)) }, icon('term'), 'Open a terminal'))) : null,
        tabs.find((t) => t.id === view.tab)?.exit ? h('p', { class: 'muted pad' }, 'It ended: ', tabs.find((t) => t.id === view.tab)!.exit) : null),
      view.panel && running ? inside(s) : null));
}

// isShell tells the shell of a terminal, which is found by a loop, from what is run in it.
const isShell = (args: string[]) => args.some((a) => a.startsWith('for s in bash ash;'));

function inside(s: Session): Child {
  const i = view.inside, denied = i?.network?.denied ?? [], forwards = i?.forwards ?? s.forwards;
  return h('aside', { class: 'inside', 'aria-label': 'Inside' },
    h('h2', null, 'Processes'), i?.processes.length ? h('ul', { class: 'plain' }, i.processes.map((p) => h('li', { key: p.id }, h('code', { title: p.args.join(' ') }, isShell(p.args) ? 'terminal' : p.args.join(' ').slice(0, 60)), h('span', { class: 'muted' }, p.exit ? `exit ${p.exit.code}` : span(p.age / 1e9)), p.exit ? null : h('button', { class: 'ghost', 'aria-label': 'End process ' + p.pid, onclick: act(async () => { await post(`sessions/${s.sid}/kill`, { id: p.id, signal: 15 }); await look(s.sid); }) }, icon('close'))))) : h('p', { class: 'muted' }, 'Nothing of yours runs.'),
    h('h2', null, 'Forwards'), forwards.length ? h('ul', { class: 'plain' }, forwards.map((f) => h('li', { key: f.host + f.protocol }, h('a', { href: 'http://127.0.0.1:' + f.host, target: '_blank', rel: 'noreferrer' }, `127.0.0.1:${f.host}`), h('span', { class: 'muted' }, `→ ${f.guest}${f.protocol === 'udp' ? '/udp' : ''}`), h('button', { class: 'ghost', 'aria-label': 'Close the forward of port ' + f.host, onclick: act(async () => { await post(`sessions/${s.sid}/forwards`, { remove: [f] }); await look(s.sid); }) }, icon('close'))))) : null,
    h('form', { class: 'row', onsubmit: (e: Event) => { e.preventDefault(); post(`sessions/${s.sid}/forwards`, { add: [view.forward] }).then(() => { view.forward = ''; return look(s.sid); }).catch(failed); } }, h('input', { type: 'text', 'aria-label': 'Port to forward', placeholder: i?.ports?.[0] ?? '8080 or 3000:80', value: view.forward, required: true, oninput: (e: any) => (view.forward = e.target.value) }), h('button', null, 'Forward')),
    h('h2', null, 'Files'), h('label', null, 'Path in the guest', h('input', { type: 'text', value: view.path, spellcheck: 'false', oninput: (e: any) => (view.path = e.target.value) })),
    h('div', { class: 'row' }, h('a', { class: 'button', href: at(s), draggable: 'true', title: 'Or drag it out of the browser', onclick: (e: Event) => { e.preventDefault(); fetchFile(s).catch(failed); }, ondragstart: (e: DragEvent) => e.dataTransfer!.setData('DownloadURL', `application/octet-stream:${landed(view.path)}:${new URL(at(s), location.href)}`) }, icon('down'), 'Download'), h('label', { class: 'button' }, icon('up'), 'Upload…', h('input', { type: 'file', multiple: true, class: 'hidden', onchange: (e: any) => { send(s, e.target.files); e.target.value = ''; } }))), h('p', { class: 'muted' }, 'Files dropped on this page land in that directory.'),
    h('h2', null, 'Network'), i && !i.network ? h('p', { class: 'muted' }, 'It has none.') : h('p', { class: 'muted' }, i?.network ? `${size(i.network.metrics.rx_bytes)} received, ${size(i.network.metrics.tx_bytes)} sent` : ''),
    denied.length ? h('ul', { class: 'plain' }, denied.map((d) => h('li', null, h('code', null, d.name ?? d.destination), h('span', { class: 'muted' }, `${d.reason}, ${d.count}×, ${ago(d.time)}`)))) : i?.network ? h('p', { class: 'muted' }, 'Nothing was denied.') : null);
}
