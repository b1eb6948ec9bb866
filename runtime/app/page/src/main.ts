import './style.css';
import { h, flat, patch, type Child } from './dom';
import { post } from './api';
import { drawer, go, listen, measure, redraw, route, state, ui } from './store';
import { size } from './format';
import { icon } from './icons';
import { confirm, help, palette, type Command } from './dialogs';
import { desktopCommands, library, lookForMedia, pullDialog, sessionName, terminalIn } from './library';
import { dropped, jobView, load, wizard } from './wizard';
import { desktopView } from './desktop';
import { openTerminal, sessionDrop, sessionView } from './session';

const root = document.getElementById('app')!;

function top(): Child {
  return h('header', { class: 'top', key: 'top' },
    h('a', { class: 'brand', href: '#/library', 'aria-label': 'Lumina, the library' }, h('span', { class: 'lamp', 'aria-hidden': 'true' }), 'lumina'),
    h('span', { class: 'muted wide-only' }, state.host.cpus, ' CPUs · ', size(state.host.memory_bytes), ' · ', size(state.host.free_bytes), ' free', state.host.emulated ? h('span', { title: 'This host has no KVM that you may use: machines of every kind are emulated. lumina doctor says more.' }, ' · no KVM, slow') : null),
    h('span', { class: 'grow' }),
    h('button', { class: 'ghost', title: 'Do anything by its name', onclick: () => palette(commands()) }, 'Commands', h('kbd', null, 'Ctrl K')),
    h('button', { class: 'ghost wide-only', title: 'Keys', onclick: help }, h('span', { class: 'hidden' }, 'Keys: '), h('kbd', null, '?')),
    h('a', { class: 'button primary', href: '#/new' }, icon('plus'), 'New', h('span', { class: 'wide-only' }, 'desktop')));
}

function draw() {
  const r = route();
  const views: Record<string, () => Child> = { library, new: wizard, job: () => jobView(r.id), desktop: () => desktopView(r.id), session: () => sessionView(r.id) };
  const bare = r.view === 'desktop' || r.view === 'session';
  const body = ui.closed ? h('main', { class: 'over', key: 'over' }, h('h1', null, 'The app has ended'), h('p', null, 'What it started goes on. ', h('code', null, 'lumina app'), ' opens it again.')) : (views[r.view] ?? library)();
  const lost = ui.connected || ui.closed ? null : h('div', { class: 'lost', role: 'alert', key: 'lost' }, h('b', null, 'The app does not answer.'), ' If it has ended, ', h('code', null, 'lumina app'), ' opens it again: what it started goes on.');
  patch(root, flat([ui.closed || bare ? null : top(), body, lost]));
  const name = r.view === 'desktop' ? state.desktops.find((d) => d.id === r.id)?.name : r.view === 'session' ? state.sessions.filter((s) => s.sid === r.id).map(sessionName)[0] : '';
  document.title = (name ? name + ' – ' : '') + 'Lumina';
}

function quit() {
  confirm('Leave the app?', 'Desktops and sessions that run go on.', 'Leave', async () => {
    await post('quit');
    ui.closed = true;
    redraw();
    window.close();
  });
}

function commands(): Command[] {
  const all: Command[] = [{ name: 'New desktop', hint: 'n', run: () => go('new') }, { name: 'Library', run: () => go('library') }, { name: 'Pull an image', run: pullDialog }, { name: 'Keys', hint: '?', run: help }, { name: 'Leave the app', hint: 'q', run: quit }];
  for (const d of state.desktops) {
    all.push({ name: d.name, hint: 'open the desktop', run: () => go('desktop/' + d.id) });
    for (const c of desktopCommands(d)) if (c.name !== 'Open') all.push({ ...c, name: `${d.name}: ${c.name.replace('…', '')}`, hint: 'desktop' });
  }
  for (const s of state.sessions) all.push({ name: sessionName(s), hint: 'open the session', run: () => go('session/' + s.sid) });
  for (const i of state.images) all.push({ name: 'Terminal in ' + i.name, hint: 'new session', run: () => terminalIn(i.name) });
  return all;
}

addEventListener('keydown', (e) => {
  const el = e.target as HTMLElement;
  if ((e.ctrlKey || e.metaKey) && e.key.toLowerCase() === 'k' && !el.closest?.('#screen, .term, dialog')) { e.preventDefault(); palette(commands()); return; }
  if (e.ctrlKey || e.altKey || e.metaKey || el.closest?.('input, textarea, select, dialog, #screen, .term, .menu')) return;
  const items = () => [...document.querySelectorAll<HTMLElement>('.item')];
  const step = (by: number) => { const all = items(), i = all.indexOf(document.activeElement as HTMLElement); all[i < 0 ? (by > 0 ? 0 : all.length - 1) : (i + by + all.length) % all.length]?.focus(); };
  const r = route();
  switch (e.key) {
    case '?': help(); break;
    case '/': if (r.view !== 'library') go('library'); setTimeout(() => document.getElementById('search')?.focus(), 50); break;
    case 'n': go('new'); break;
    case 'j': step(1); break;
    case 'k': step(-1); break;
    case 't': if (r.view === 'session') openTerminal(r.id); break;
    case 'q': case 'Escape': if (ui.closed) break; if (r.view !== 'library' || r.id) go('library'); else if (e.key === 'q') quit(); break;
    default: return;
  }
  e.preventDefault();
});

addEventListener('dragover', (e) => { if (e.dataTransfer?.types.includes('Files')) { e.preventDefault(); document.body.classList.add('dropping'); } });
addEventListener('dragleave', (e) => { if (!e.relatedTarget) document.body.classList.remove('dropping'); });
addEventListener('drop', (e) => {
  document.body.classList.remove('dropping');
  const files = e.dataTransfer?.files;
  if (!files?.length) return;
  e.preventDefault();
  const r = route();
  if (r.view === 'session') sessionDrop(r.id, files);
  else dropped(files[0]!);
});

let was = '', left = location.hash;
addEventListener('hashchange', () => {
  redraw();
  const view = route().view;
  if (view === 'new') {
    load();
    // Enter makes it, unless somebody has gone elsewhere meanwhile.
    const at = document.activeElement;
    setTimeout(() => { if (document.activeElement === at) document.getElementById('create')?.focus(); }, 200);
  }
  if (view !== was) scrollTo(0, 0);
  // Who comes back goes on where they left.
  const from = left;
  if (view === 'library' && view !== was) setTimeout(() => { if (document.activeElement === document.body) [...document.querySelectorAll<HTMLElement>('a.item')].find((a) => a.getAttribute('href') === from)?.focus(); }, 150);
  was = view;
  left = location.hash;
});
drawer(draw);
draw();
listen();
if (route().view === 'new') load(); else lookForMedia();
setInterval(measure, 3000);
measure();
setInterval(() => { if (!document.hidden) redraw(); }, 30000); // "2 minutes ago"
addEventListener('visibilitychange', () => { if (!document.hidden) { measure(); redraw(); } });
