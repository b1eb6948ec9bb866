import { h, type Child } from './dom';
import { base, get, post, remove, type Desktop, type Image, type Job, type Medium, type Release, type Session } from './api';
import { state, ui, go, redraw, route } from './store';
import { ago, load, quote, size } from './format';
import { icon } from './icons';
import { act, confirm, copy, dialog, failed, menu, toast, type Command } from './dialogs';

let media: Medium[] | null = state.media ?? null;
export const atHand = () => media;
export async function lookForMedia() {
  try { media = await get<Medium[]>('media'); redraw(); } catch { media = []; }
}

const filters = [['', 'All'], ['desktops', 'Desktops'], ['sessions', 'Sessions'], ['images', 'Images']] as const;

export function library(): Child {
  const only = route().id;
  const match = (...texts: (string | undefined)[]) => texts.join(' ').toLowerCase().includes(ui.search.toLowerCase());
  const order = <T>(all: T[], name: (x: T) => string, used: (x: T) => string, bytes: (x: T) => number) =>
    [...all].sort((a, b) => (ui.sort === 'name' ? name(a).localeCompare(name(b)) : ui.sort === 'size' ? bytes(b) - bytes(a) : used(b).localeCompare(used(a))));
  const desktops = order(state.desktops.filter((d) => match(d.name, d.variant, d.family, d.running ? 'running' : 'stopped')), (d) => d.name, (d) => (d.running ? '1' : '0') + (d.last_booted ?? d.created), (d) => d.used_bytes);
  const sessions = order(state.sessions.filter((s) => match(s.name, s.sid, s.image, s.state)), (s) => s.name ?? s.sid, (s) => (s.state === 'running' ? '1' : '0') + s.started, (s) => s.memory_bytes);
  const images = order(state.images.filter((i) => match(i.name, i.source, i.description)), (i) => i.name, (i) => i.created, (i) => i.size_bytes);
  const jobs = state.jobs.filter((j) => j.state !== 'done');
  // A search shows what it has found.
  const show = (what: string, found: number) => (!only || only === what) && (!ui.search || found > 0);
  const nothing = ui.search && ![['desktops', desktops], ['sessions', sessions], ['images', images]].some(([what, all]) => (!only || only === what) && all!.length);
  return h('main', { class: 'library', key: 'library' },
    h('h1', { class: 'hidden' }, 'Library'),
    h('div', { class: 'tools' },
      h('nav', { class: 'filters', 'aria-label': 'What is shown' }, filters.map(([id, label]) => h('a', { href: '#/library/' + id, 'aria-current': only === id ? 'page' : null }, label, id ? h('span', { class: 'count' }, state[id].length) : null))),
      h('label', { class: 'search' }, h('span', { class: 'hidden' }, 'Search'), h('input', { id: 'search', type: 'search', placeholder: 'Search', value: ui.search, oninput: (e: any) => { ui.search = e.target.value; redraw(); }, onkeydown: (e: any) => { if (e.key === 'Escape') { ui.search = ''; e.target.blur(); redraw(); } } }), h('kbd', null, '/')),
      h('label', { class: 'sort' }, h('span', null, 'Sort'), h('select', { 'aria-label': 'Sort by', value: ui.sort, onchange: (e: any) => { ui.sort = e.target.value; localStorage.setItem('sort', ui.sort); redraw(); } }, [['used', 'last used'], ['name', 'name'], ['size', 'size']].map(([v, t]) => h('option', { value: v }, t)))),
    ),
    jobs.length ? h('section', { 'aria-label': 'Under way' }, jobs.map(jobRow)) : null,
    nothing ? h('div', { class: 'empty', key: 'nothing' }, h('strong', null, `Nothing here is called “${ui.search}”.`), h('p', null, h('button', { onclick: () => { ui.search = ''; redraw(); document.getElementById('search')?.focus(); } }, 'Show all'))) : null,
    show('desktops', desktops.length) ? section('Desktops', state.desktops.length, desktops.length, state.desktops.length ? h('button', { class: 'ghost', onclick: () => { ui.list = !ui.list; localStorage.setItem('list', ui.list ? 'yes' : ''); redraw(); } }, icon(ui.list ? 'cards' : 'log'), ui.list ? 'Cards' : 'List') : null,
      state.desktops.length ? (ui.list ? table(['Desktop', 'System', 'State', 'Uses', 'On disk', 'Last used', ''], desktops.map(desktopRow)) : h('div', { class: 'cards' }, desktops.map(card))) : emptyDesktops()) : null,
    show('sessions', sessions.length) ? section('Sessions', state.sessions.length, sessions.length, null,
      state.sessions.length ? table(['Session', 'Image', 'State', 'Uses', 'Forwards', ''], sessions.map(sessionRow)) : empty('No session runs.', 'A session is a VM that stays, for commands and terminals.', state.images.length ? 'Start one by “Terminal” beside an image below.' : 'Pull an image first.')) : null,
    show('images', images.length) ? section('Images', state.images.length, images.length, state.images.length ? h('button', { onclick: pullDialog }, icon('down'), 'Pull an image') : null,
      state.images.length ? table(['Image', 'Source', 'Size', 'Made', ''], images.map(imageRow)) : empty('There is no image yet.', 'An image is what sessions and lumina run boot: any container image, such as debian:12.', h('button', { class: 'primary', onclick: pullDialog }, icon('down'), 'Pull an image'))) : null,
  );
}

function section(title: string, n: number, found: number, action: Child, body: Child): Child {
  return h('section', { key: title, 'aria-label': title }, h('header', null, h('h2', null, title), n ? h('span', { class: 'count' }, found < n ? `${found} of ${n}` : n) : null, h('span', { class: 'grow' }), action), body);
}
function empty(title: string, text: string, next: Child): Child {
  return h('div', { class: 'empty' }, h('strong', null, title), h('p', null, text, typeof next === 'string' ? ' ' + next : null), typeof next === 'string' ? null : h('p', null, next));
}
function table(heads: string[], rows: Child): Child {
  return h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Table of ' + heads[0]!.toLowerCase() + 's' }, h('table', null, h('thead', null, h('tr', null, heads.map((t) => (t ? h('th', { scope: 'col' }, t) : h('td', null))))), h('tbody', null, rows)));
}

function emptyDesktops(): Child {
  if (state.host.no_desktops) return empty('This host runs no desktops.', state.host.no_desktops, '');
  const good = (media ?? []).filter((m) => !m.reason); // why others do not boot is told where one is chosen
  return h('div', { class: 'empty start' },
    h('strong', null, 'A whole computer in a window'),
    h('p', null, 'A desktop is a system with a screen, installed from its ISO. ', good.length ? 'These are at hand:' : 'Drop an ISO on this page, or choose a system.'),
    h('div', { class: 'tiles' }, mediaTiles(null, good), h('a', { class: 'tile quiet', href: '#/new' }, h('span', { class: 'glyph' }, icon('plus')), h('span', { class: 'grow' }, h('b', null, 'Another system'), h('small', null, 'from the catalogue, or a file of yours')))));
}

// mediaTiles are the files at hand; the one that is chosen is marked.
export function mediaTiles(chosen: string | null, all = media ?? []): Child {
  return all.map((m) =>
    h('a', { key: m.file, class: 'tile' + (m.reason ? ' bad' : ''), href: '#/new?file=' + encodeURIComponent(m.file), 'aria-current': chosen === m.file ? 'true' : null, title: m.file },
      h('span', { class: 'glyph' }, icon('disc')), h('span', { class: 'grow' }, h('b', null, m.name), h('small', null, size(m.size_bytes), m.arch ? ' · ' + m.arch : '', m.reason ? ' · does not boot here' : ''))));
}

export function jobText(j: Job): string {
  const steps: Record<string, string> = { download: 'downloading', check: 'checking the file', create: 'making the disk', boot: 'starting', copy: 'copying', fetch: 'fetching', unpack: 'unpacking', verify: 'trying it', cached: 'taking what is here' };
  if (j.state === 'failed') return j.error ?? 'failed';
  if (j.state === 'cancelled') return 'cancelled';
  return (steps[j.step ?? ''] ?? j.step ?? 'starting') + (j.total ? `, ${size(j.done)} of ${size(j.total)}` : j.done ? `, ${size(j.done)}` : '');
}
export function bar(j: Job): Child {
  return h('progress', { 'aria-label': j.subject, max: 1, value: j.total ? j.done / j.total : null });
}
function jobRow(j: Job): Child {
  const what = { create: 'Desktop', pull: 'Image', clone: 'Copy' }[j.kind] ?? j.kind;
  return h('div', { class: 'job ' + j.state, key: 'job' + j.id }, h('span', null, h('b', null, j.subject), ' ', h('span', { class: 'muted' }, what)), j.state === 'running' ? bar(j) : null, h('span', { class: j.state === 'failed' ? 'wrong' : 'muted' }, jobText(j)),
    h('button', { class: 'ghost', 'aria-label': (j.state === 'running' ? 'Cancel ' : 'Dismiss ') + j.subject, onclick: act(() => remove('jobs/' + j.id)) }, icon('close')));
}

const osNames: Record<string, string> = { linux: 'Linux', windows: 'Windows', macOS: 'macOS' };
function dot(on: boolean, bad = false): Child { return h('span', { class: 'dot' + (on ? ' on' : bad ? ' bad' : ''), 'aria-hidden': 'true' }); }
export const crashed = (d: Desktop) => !d.running && !!d.boot?.error;

export const systemName = (d: Desktop) => (d.variant && d.variant !== 'generic' ? d.variant : osNames[d.family] ?? d.family);

// blank stands for a screen that nobody has seen.
export function blank(d: Desktop): Child {
  return h('span', { class: 'blank' }, h('span', { class: 'glyph letter ' + d.variant.split('-')[0], 'aria-hidden': 'true' }, [...(d.variant && d.variant !== 'generic' ? d.variant : d.name)][0]?.toUpperCase()), d.running ? 'starting' : d.last_booted ? 'no picture was kept' : 'not started yet');
}

const moreButton = (d: Desktop): Child => h('button', { class: 'ghost more', 'aria-label': 'More for ' + d.name, 'aria-haspopup': 'menu', onclick: (e: any) => menu(e.currentTarget, desktopCommands(d)) }, icon('more'));
const condition = (d: Desktop) => (d.error ? 'damaged' : d.running ? 'running' : crashed(d) ? 'crashed' : 'stopped');
// The link of a card or row is its name; the card's is all of the card for a pointer.
const opens = (d: Desktop): Child => (d.error ? h('b', { title: d.name }, d.name) : h('a', { href: '#/desktop/' + d.id, class: 'open item', title: d.name }, d.name, h('span', { class: 'hidden' }, ', ' + condition(d))));
const shot = (d: Desktop): Child => (d.picture ? h('img', { src: `${base}api/desktops/${d.id}/picture?small&v=${d.picture}`, alt: '', loading: 'lazy' }) : null);

function card(d: Desktop): Child {
  const u = ui.usage.get(d.id);
  return h('article', { class: 'card' + (d.running ? ' lit' : ''), key: d.id },
    d.error ? h('div', { class: 'shot damaged' }, h('span', { class: 'blank' }, h('span', { class: 'glyph letter bad', 'aria-hidden': 'true' }, '!'), d.error)) : h('div', { class: 'shot' }, shot(d) ?? blank(d)),
    h('div', { class: 'name' }, dot(d.running, crashed(d) || !!d.error), opens(d), moreButton(d)),
    h('div', { class: 'meta' }, h('span', null, d.error ? 'damaged' : systemName(d), d.arch && d.arch !== state.host.arch ? ' · ' + d.arch : ''), h('span', null, size(u?.disk ?? d.used_bytes), ' on disk')),
    d.error ? null : h('div', { class: 'meta' }, d.running ? [h('span', null, u ? load(u) : 'running'), h('span', null, u ? 'of ' : '', size(d.memory_bytes))] : [h('span', null, used(d)), h('span', null, d.cpus, ' CPU', d.cpus > 1 ? 's' : '', ' · ', size(d.memory_bytes))]));
}
const used = (d: Desktop) => (crashed(d) ? 'crashed ' : d.last_booted ? '' : 'made ') + ago(d.boot?.ended ?? d.last_booted ?? d.created);

function desktopRow(d: Desktop): Child {
  const u = ui.usage.get(d.id), start = desktopCommands(d)[0]!;
  return h('tr', { key: d.id },
    h('td', { class: 'pictured' }, h('span', { class: 'thumb', 'aria-hidden': 'true' }, shot(d)), h('span', null, opens(d), d.error ? h('div', { class: 'wrong' }, d.error) : null)),
    h('td', { class: 'muted' }, d.error ? '' : systemName(d), d.arch && d.arch !== state.host.arch ? ' · ' + d.arch : ''),
    h('td', null, dot(d.running, crashed(d) || !!d.error), condition(d)),
    h('td', { class: 'num' }, d.error ? '' : u ? `${load(u)} of ${size(d.memory_bytes)}` : `${d.cpus} CPU${d.cpus > 1 ? 's' : ''} · ${size(d.memory_bytes)}`),
    h('td', { class: 'num' }, size(u?.disk ?? d.used_bytes)), h('td', { class: 'muted when' }, d.error ? '' : d.running ? 'now' : used(d)),
    h('td', { class: 'actions' }, d.error ? null : h('button', { onclick: start.run, 'aria-label': start.name + ' ' + d.name }, start.name), moreButton(d)));
}

export function desktopCommands(d: Desktop): Command[] {
  const at = 'desktops/' + d.id;
  if (d.error) return [{ name: 'Delete', danger: true, run: () => confirm(`Delete ${d.name} for good?`, 'It is damaged: this cannot be undone.', 'Delete', () => remove(at)) }];
  if (d.running) return [
    { name: 'Open', run: () => go('desktop/' + d.id) },
    { name: 'Shut down', hint: 'its power button', run: act(() => post(at + '/stop')) },
    { name: 'Reset', hint: 'its reset button', run: act(() => post(at + '/reset')) },
    { name: 'Force off', danger: true, run: () => confirm(`End ${d.name} at once?`, 'What its programs have not written to its disk is lost.', 'Force off', () => post(at + '/stop', { force: true })) },
  ];
  return [
    { name: 'Start', run: act(async () => { go('desktop/' + d.id); await post(at + '/boot'); }) },
    { name: 'Change…', hint: 'CPUs, memory, disk, ISO', run: () => changeDialog(d) },
    { name: 'Clone…', run: () => ask('Clone ' + d.name, 'Name of the copy', d.name + '-copy', 'Clone', (name) => post(at + '/clone', { name })) },
    ...(d.iso ? [{ name: 'Start without the ISO', run: act(async () => { go('desktop/' + d.id); await post(at + '/boot', { iso: 'none' }); }) }] : []),
    { name: 'Copy diagnostics', run: act(() => diagnostics(d)) },
    { name: 'Delete', danger: true, run: act(async () => {
      await remove(at);
      if (route().id === d.id) go('library');
      toast(`${d.name} is deleted`, { label: 'Undo', run: act(() => post(at + '/restore')) }, 20);
    }) },
  ];
}
export async function diagnostics(d: Desktop) {
  const r = await fetch(`${base}api/desktops/${d.id}/diagnostics`);
  await copy(await r.text(), 'Diagnostics');
}

function ask(title: string, label: string, value: string, button: string, run: (v: string) => Promise<unknown>) {
  let v = value;
  dialog(title, (close) => h('form', { onsubmit: (e: Event) => { e.preventDefault(); close(); run(v).catch(failed); } },
    h('label', null, label, h('input', { type: 'text', value, required: true, autofocus: true, oninput: (e: any) => (v = e.target.value) })), h('div', { class: 'row end' }, h('button', { type: 'button', onclick: close }, 'Cancel'), h('button', { class: 'primary' }, button))));
}

function changeDialog(d: Desktop) {
  const v = { name: d.name, cpus: d.cpus, memory: d.memory_bytes / 2 ** 20, disk: Math.round((100 * d.disk_bytes) / 2 ** 30) / 100, iso: d.iso ?? '', drivers: d.drivers ?? '', network: d.network };
  const was = { ...v };
  const number = (label: string, key: 'cpus' | 'memory' | 'disk', min: number, max: number) => h('label', null, label, h('input', { type: 'number', min, max, step: 'any', value: v[key], oninput: (e: any) => (v[key] = Number(e.target.value)) }));
  const text = (label: string, key: 'name' | 'iso' | 'drivers' | 'network', hint = '') => h('label', null, label, h('input', { type: 'text', value: v[key], placeholder: hint, oninput: (e: any) => (v[key] = e.target.value) }));
  dialog('Change ' + d.name, (close) => h('form', { class: 'grid', onsubmit: (e: Event) => {
    e.preventDefault();
    const c: Record<string, unknown> = {};
    if (v.name !== was.name) c.name = v.name;
    if (v.cpus !== was.cpus) c.cpus = v.cpus;
    if (v.memory !== was.memory) c.memory_bytes = Math.round(v.memory * 2 ** 20);
    if (v.disk !== was.disk) c.disk_bytes = Math.round(v.disk * 2 ** 30);
    if (v.iso !== was.iso) c.iso = v.iso || 'none';
    if (v.drivers !== was.drivers) c.drivers = v.drivers || 'none';
    if (v.network !== was.network) c.network = v.network;
    post(`desktops/${d.id}/change`, c).then(close, failed);
  } }, text('Name', 'name'), h('div', { class: 'pair' }, number(`CPUs, of ${state.host.cpus}`, 'cpus', 1, state.host.max_cpus), number('Memory in MB', 'memory', 64, 1e9)), number('Disk in GB: it only grows', 'disk', 0.01, 16384), text('ISO', 'iso', 'none'), text('Second ISO, for drivers', 'drivers', 'none'), text('Network: nat, none, or allow=HOST[:PORT],…', 'network', 'nat'), h('div', { class: 'row end' }, h('button', { type: 'button', onclick: close }, 'Cancel'), h('button', { class: 'primary' }, 'Change'))));
}

export const sessionName = (s: Session) => s.name || s.sid.slice(0, 8);
function sessionRow(s: Session): Child {
  const u = ui.usage.get(s.sid);
  return h('tr', { key: s.sid },
    h('td', null, h('a', { class: 'item', href: '#/session/' + s.sid }, h('b', null, sessionName(s)))), h('td', { class: 'source' }, s.image),
    h('td', null, dot(s.state === 'running', s.state === 'crashed'), s.state, s.state === 'running' ? h('span', { class: 'muted' }, ' · started ', ago(s.started)) : null, s.message ? h('div', { class: 'wrong' }, s.message) : null),
    h('td', { class: 'num' }, u ? load(u) : s.memory_bytes ? size(s.memory_bytes) : ''),
    h('td', null, s.forwards.map((f) => h('a', { class: 'port', href: 'http://127.0.0.1:' + f.host, target: '_blank', rel: 'noreferrer' }, `${f.host}→${f.guest}`))),
    h('td', { class: 'actions' }, h('button', { 'aria-label': 'Stop ' + sessionName(s), onclick: act(() => remove('sessions/' + s.sid)) }, s.state === 'crashed' ? 'Remove' : 'Stop')));
}

let starting = '';
export async function terminalIn(image: string) {
  if (starting) return;
  starting = image;
  redraw();
  try {
    const s = await post<{ sid: string }>('sessions', { image });
    await post('sessions/' + s.sid + '/terminals', {});
    go('session/' + s.sid);
  } catch (e) { failed(e); } finally { starting = ''; redraw(); }
}

function imageRow(i: Image): Child {
  return h('tr', { key: i.name },
    h('td', null, h('b', null, i.name), i.description ? h('div', { class: 'muted' }, i.description) : null, i.error ? h('div', { class: 'wrong' }, i.error) : null),
    h('td', { class: 'muted source' }, i.source), h('td', { class: 'num' }, i.error ? '' : size(i.size_bytes)), h('td', { class: 'muted' }, i.error ? '' : ago(i.created)),
    h('td', { class: 'actions' }, i.error ? null : h('button', { class: 'item', disabled: !!starting, 'aria-label': 'Terminal in a new session of ' + i.name, onclick: () => terminalIn(i.name) }, icon('term'), starting === i.name ? 'Starting…' : 'Terminal'),
      h('button', { class: 'ghost', 'aria-label': 'More for ' + i.name, 'aria-haspopup': 'menu', onclick: (e: any) => menu(e.currentTarget, [
        { name: 'Copy lumina run …', run: () => copy(`lumina run --image ${quote(i.name)} 'uname -a'`, 'Command') },
        { name: 'Remove', danger: true, run: () => confirm(`Remove image ${i.name}?`, `${size(i.size_bytes)} are freed. ${i.source ? 'It was made of ' + i.source + '.' : ''}`, 'Remove', () => remove('images/' + encodeURIComponent(i.name))) },
      ]) }, icon('more'))));
}

export function pullDialog() {
  let ref = '';
  dialog('Pull an image', (close) => [
    h('form', { onsubmit: (e: Event) => { e.preventDefault(); post('images/pull', { reference: ref }).then(close, failed); } },
      h('label', null, 'Reference in a registry', h('input', { type: 'text', placeholder: 'debian:12', required: true, autofocus: true, oninput: (e: any) => (ref = e.target.value) })), h('div', { class: 'row end' }, h('button', { class: 'primary' }, 'Pull'))),
    h('div', { mount: (el) => {
      el.textContent = 'Asking for the images of the latest release …';
      el.className = 'muted';
      get<Release[]>('releases').then((all) => {
        el.textContent = all.length ? '' : 'The latest release has no image for this host.';
        for (const r of all) {
          const b = document.createElement('button');
          b.className = 'tile';
          b.textContent = `${r.id} – ${r.description} (${size(r.download_bytes)})`;
          b.onclick = () => { post('images/pull', { reference: r.id, release: true }).then(close, failed); };
          el.append(b);
        }
      }, (e) => (el.textContent = 'No release can be asked: ' + e.message));
    } }),
  ]);
}
