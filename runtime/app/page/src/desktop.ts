import { h, type Child } from './dom';
import { base, post, socket, type Boot, type Desktop } from './api';
import { state, redraw } from './store';
import { ago, plain, size, span } from './format';
import { icon } from './icons';
import { act, copy, dialog, failed, menu, toast } from './dialogs';
import { blank, crashed, desktopCommands, diagnostics, systemName } from './library';
import type { Screen } from './screen';
import { play, type Sound } from './sound';

const view = { id: '', screen: null as Screen | null, connected: false, captured: false, fit: true, lit: 0, log: false, sound: null as Sound | null, heard: 0 };

const phaseNames: Record<string, string> = { parts: 'Disk, ISO, network', machine: 'Machine', firmware: 'Firmware', loader: 'Boot loader', kernel: 'Kernel', system: 'System', login: 'Login' };

// waterfall draws the phases of a boot as bars over time.
function waterfall(boot: Boot, running: boolean): Child {
  const marks = [{ name: 'begin', at_ms: 0 }, ...boot.phases];
  const end = boot.ended ? Date.parse(boot.ended) - Date.parse(boot.began) : running ? Math.max(Date.now() - Date.parse(boot.began), marks[marks.length - 1]!.at_ms + 1) : marks[marks.length - 1]!.at_ms + 1;
  // What is under way has not said anything yet: the firmware, once there is a machine.
  const last = boot.phases[boot.phases.length - 1], phases = running && last?.name === 'machine' ? [...boot.phases, { name: 'firmware', at_ms: last.at_ms }] : boot.phases;
  // A firmware works long before it says anything; of the last phase nobody knows the end.
  const rows = phases.map((p, i) => ({ name: phaseNames[p.name] ?? p.name, goesOn: !boot.ended && !running && i === phases.length - 1, from: ['parts', 'machine', 'firmware'].includes(p.name) ? marks[i]!.at_ms : p.at_ms, to: p.name === 'parts' || p.name === 'machine' ? p.at_ms : phases[i + 1]?.at_ms ?? end }));
  const total = Math.max(1, end);
  return h('div', { class: 'waterfall', role: 'table', 'aria-label': 'Phases of the boot' }, rows.map((r) => h('div', { role: 'row' }, h('span', { role: 'cell' }, r.name), h('span', { role: 'cell', class: 'track' }, h('i', { style: `left:${(100 * r.from) / total}%;width:${Math.max(0.6, (100 * (r.to - r.from)) / total)}%` })), h('span', { role: 'cell', class: 'num' }, r.goesOn ? '…' : took(r.to - r.from)))));
}

const took = (ms: number) => (ms < 1000 ? Math.round(ms) + ' ms' : ms < 90_000 ? (ms / 1000).toFixed(1) + ' s' : span(ms / 1000));

// mountScreen shows the screen as long as the desktop runs, and again when the connection
// breaks.
function mountScreen(d: Desktop) {
  return (el: HTMLElement) => {
    let over = false, timer = 0;
    view.lit = 0;
    const connect = async () => {
      const { show } = await import('./screen');
      if (over) return;
      el.replaceChildren();
      view.screen = show(el, `ws://${location.host}${base}api/desktops/${d.id}/screen`, {
        connected: (on) => {
          view.connected = on;
          if (on) { view.screen?.fit(view.fit); view.screen?.focus(); }
          else if (!over) timer = window.setTimeout(() => { if (!over && state.desktops.find((x) => x.id === d.id)?.running) connect().catch(failed); }, 700);
          redraw();
        },
        captured: (on) => { view.captured = on; redraw(); },
        // A guest does not change this host's clipboard by itself.
        copied: (text) => { if (text) toast(`${d.name} has copied a text`, { label: 'Copy it here', run: () => { copy(text, 'Text'); } }); },
      });
    };
    connect().catch(failed);
    listen(d.id);
    const look = setInterval(() => {
      if (!view.lit && view.screen?.lit()) { view.lit = Date.now(); redraw(); }
      else if (!view.lit) redraw(); // the waterfall grows
    }, 500);
    return () => { over = true; clearTimeout(timer); clearInterval(look); view.screen?.close(); mute(); view.screen = null; view.connected = view.captured = false; };
  };
}

// mountSound plays what the desktop does while its screen is shown, if that is wished.
const loud = () => localStorage.getItem('sound') === 'on';
function mute() { view.sound?.close(); view.sound = null; view.heard = 0; }
function listen(id: string) {
  mute();
  if (!loud()) return;
  view.sound = play(id, {
    heard: () => { if (Date.now() - view.heard > 1000) { redraw(); setTimeout(redraw, 2100); } view.heard = Date.now(); },
    failed: (why) => { mute(); toast('No sound: ' + why); redraw(); },
  });
}

const maxTail = 200_000;
let serialPort: WebSocket | undefined;
function mountSerial(id: string) {
  return (el: HTMLElement) => {
    let ws: WebSocket, over = false, raw = '';
    const decode = new TextDecoder();
    const connect = () => {
      raw = '';
      ws = serialPort = socket(`desktops/${id}/serial`);
      ws.onmessage = (e) => {
        if (typeof e.data === 'string') { toast(JSON.parse(e.data).error); return; }
        const end = el.scrollHeight - el.scrollTop - el.clientHeight < 40;
        raw = (raw + decode.decode(e.data, { stream: true })).slice(-maxTail);
        el.textContent = plain(raw);
        if (end) el.scrollTop = el.scrollHeight;
      };
      ws.onclose = () => { if (!over) setTimeout(() => !over && connect(), 1000); };
    };
    connect();
    return () => { over = true; ws.close(); };
  };
}
// serialLine types a line, or a control character, into the serial port.
function serialLine(): Child {
  const type = (text: string) => {
    if (serialPort?.readyState === WebSocket.OPEN) serialPort.send(new TextEncoder().encode(text));
    else toast('The serial port is not connected yet');
  };
  return h('form', { class: 'row serial-line', key: 'line', onsubmit: (e: Event) => { e.preventDefault(); const box = (e.target as HTMLFormElement).elements[0] as HTMLInputElement; type(box.value + '\r'); box.value = ''; } },
    h('input', { type: 'text', 'aria-label': 'A line for the serial port', placeholder: 'Type here; Enter sends it', autocomplete: 'off', autocapitalize: 'off', spellcheck: 'false', onkeydown: (e: KeyboardEvent) => {
      const box = e.target as HTMLInputElement;
      if (!e.ctrlKey || e.altKey || e.shiftKey || box.selectionStart !== box.selectionEnd || !['c', 'd', 'z'].includes(e.key)) return;
      e.preventDefault();
      type(String.fromCharCode(e.key.charCodeAt(0) & 31));
    } }), h('button', null, 'Send'));
}
const serialLog = (d: Desktop): Child => h('pre', { key: 'serial', class: 'serial', tabindex: '0', role: 'log', 'aria-label': 'Serial port', mount: mountSerial(d.id) });

const chords = [['Ctrl+Alt+Del', 'ctrl+alt+delete'], ['Ctrl+Alt+F1', 'ctrl+alt+f1'], ['Ctrl+Alt+F2', 'ctrl+alt+f2'], ['Ctrl+Alt+F3', 'ctrl+alt+f3'], ['Alt+Tab', 'alt+tab'], ['Alt+F4', 'alt+f4'], ['Super', 'super'], ['Super+R', 'super+r'], ['Ctrl+Esc', 'ctrl+esc'], ['Print', 'print']] as const;

function paste(d: Desktop) {
  let text = '';
  dialog('Paste or type a text', (close) => h('form', { onsubmit: (e: Event) => { e.preventDefault(); close(); view.screen?.focus(); post(`desktops/${d.id}/type`, { text }).catch(failed); } },
    h('label', null, 'It is typed key by key, as on a US keyboard.', h('textarea', { rows: 6, autofocus: true, oninput: (e: any) => (text = e.target.value), mount: (el) => { navigator.clipboard?.readText?.().then((t) => { if (!text) { text = t; (el as HTMLTextAreaElement).value = t; } }, () => {}); } })),
    h('div', { class: 'row end' }, h('button', { type: 'button', onclick: close }, 'Cancel'), h('button', { type: 'button', title: 'For guests that run spice-vdagent', onclick: () => { view.screen?.clipboard(text); close(); view.screen?.focus(); toast('On its clipboard, if its guest runs spice-vdagent'); } }, 'Put on its clipboard'), h('button', { class: 'primary' }, 'Type it'))));
}

function screenshot(d: Desktop) {
  const a = document.createElement('a');
  a.href = `${base}api/desktops/${d.id}/picture`;
  a.download = `${d.name}-${new Date().toISOString().slice(0, 19).replaceAll(':', '')}.png`;
  a.click();
  toast('Screenshot saved');
}

function fullScreen() {
  // All of the page: what fills the screen hides what is not in it, as menus and dialogs.
  if (document.fullscreenElement) document.exitFullscreen();
  else document.documentElement.requestFullscreen().then(() => { (navigator as any).keyboard?.lock?.(); view.screen?.focus(); }, failed);
}

export function desktopView(id: string): Child {
  const d = state.desktops.find((x) => x.id === id || x.name === id);
  if (!d) return h('main', { class: 'wizard', key: 'gone' }, h('header', null, h('a', { class: 'button ghost', href: '#/library', 'aria-label': 'Back to the library' }, icon('back')), h('h1', null, 'No such desktop')), h('p', { class: 'muted' }, 'It was deleted, or has not been made yet.'));
  if (view.id !== d.id) Object.assign(view, { id: d.id, lit: 0, log: false });
  const tool = (name: string, label: string, run: (e: any) => void, text = '') => h('button', { key: name, class: 'ghost', title: label, 'aria-label': label, onclick: run }, icon(name), text ? h('span', { class: 'wide-only' }, text) : null);
  const dark = d.running && !view.lit;
  const status = d.running ? (view.connected ? (dark ? 'starting' : 'running') : 'connecting') : crashed(d) ? 'crashed' : 'off';
  return h('main', { class: 'desktop', key: 'desktop' + d.id },
    h('header', { class: 'bar' },
      h('a', { class: 'button ghost', href: '#/library', 'aria-label': 'Back to the library' }, icon('back')),
      h('h1', { title: d.name }, d.name), h('span', { class: 'state' }, h('span', { class: 'dot' + (d.running ? ' on' : crashed(d) ? ' bad' : ''), 'aria-hidden': 'true' }), status),
      view.captured ? h('span', { key: 'way-out', class: 'muted wide-only way-out' }, h('kbd', null, 'Ctrl+Alt'), ' frees the keyboard') : null,
      // A press takes the keyboard from the screen, and the words above with it: what has a key
      // stays the same element then, and its release is a click.
      h('span', { key: 'grow', class: 'grow' }),
      d.running ? [
        h('button', { key: 'cad', class: 'ghost', title: 'Press Ctrl+Alt+Del', onclick: () => { view.screen?.ctrlAltDel(); view.screen?.focus(); } }, h('span', { class: 'wide-only' }, 'Ctrl+Alt+Del'), h('span', { class: 'narrow-only' }, 'C-A-D')),
        tool('keys', 'Press keys', (e) => menu(e.currentTarget, chords.map(([name, keys]) => ({ name, run: act(async () => { await post(`desktops/${d.id}/keys`, { keys: [keys] }); view.screen?.focus(); }) })))),
        tool('paste', 'Paste or type a text', () => paste(d)), tool('camera', 'Save a screenshot', () => screenshot(d)),
        h('button', { key: 'sound', class: 'ghost sound', title: loud() ? 'Sound off' : 'Sound on', 'aria-label': 'Sound', 'aria-pressed': loud() ? 'true' : 'false', 'data-heard': loud() && Date.now() - view.heard < 2000 ? 'yes' : null, onclick: () => { localStorage.setItem('sound', loud() ? 'off' : 'on'); listen(d.id); redraw(); } }, icon(loud() ? 'sound' : 'mute')),
        tool('log', 'Boot and serial port', () => { view.log = !view.log; redraw(); }),
        tool('fit', view.fit ? '1:1, pixel by pixel' : 'Fit into the window', () => { view.fit = !view.fit; view.screen?.fit(view.fit); redraw(); }, view.fit ? '1:1' : 'Fit'),
        tool('full', 'Full screen', fullScreen),
        h('button', { key: 'power', class: 'ghost', title: 'Power', 'aria-label': 'Power', 'aria-haspopup': 'menu', onclick: (e: any) => menu(e.currentTarget, desktopCommands(d).slice(1)) }, icon('power')),
      ] : h('button', { class: 'ghost', 'aria-label': 'More', 'aria-haspopup': 'menu', onclick: (e: any) => menu(e.currentTarget, desktopCommands(d).slice(1)) }, icon('more')),
    ),
    d.running ? h('div', { class: 'stage', key: 'stage' },
      h('div', { class: 'shown', key: 'shown' }, h('div', { id: 'screen', class: view.fit ? 'fit' : 'exact', key: 'screen' + d.id + (d.boot?.began ?? ''), mount: mountScreen(d) }),
      view.captured ? h('div', { class: 'pill', role: 'status' }, 'Keys go to the desktop · ', h('kbd', null, 'Ctrl+Alt'), ' frees them') : null),
      dark || view.log ? h('aside', { class: 'boot', key: 'boot', 'aria-label': 'Boot' }, h('div', { class: 'row' }, h('b', null, dark ? 'Its screen is still dark' : 'Boot'), h('span', { class: 'grow' }), h('button', { onclick: act(() => diagnostics(d)) }, icon('copy'), 'Copy diagnostics')), d.boot ? waterfall(d.boot, d.running && dark) : null, serialLog(d), serialLine()) : null,
    ) : h('div', { class: 'off', key: 'off' },
      h('div', { class: 'still' }, d.picture ? h('img', { src: `${base}api/desktops/${d.id}/picture?v=${d.picture}`, alt: 'Its last screen' }) : blank(d)),
      h('div', { class: 'panel' },
        crashed(d) ? h('div', { class: 'wrong box', role: 'alert' }, h('b', null, 'It has crashed '), ago(d.boot?.ended), h('p', null, d.boot?.error)) : null,
        h('div', { class: 'row' }, h('button', { class: 'primary', id: 'start', onclick: act(() => post(`desktops/${d.id}/boot`)) }, icon('play'), crashed(d) ? 'Try again' : 'Start'), crashed(d) ? h('button', { onclick: act(() => diagnostics(d)) }, icon('copy'), 'Copy diagnostics') : null),
        h('dl', { class: 'facts' }, fact('System', systemName(d) + ', ' + d.arch), fact('Size', `${d.cpus} CPU${d.cpus > 1 ? 's' : ''}, ${size(d.memory_bytes)} of memory`), fact('Disk', `${size(d.used_bytes)} of ${size(d.disk_bytes)}`), d.iso ? fact('ISO', d.iso) : null, fact('Network', d.network === 'nat' ? 'the internet' : d.network.replace(/^allow=/, 'only ')), d.tpm || d.secure_boot ? fact('Has', [d.secure_boot && 'Secure Boot', d.tpm && 'TPM 2.0'].filter(Boolean).join(', ')) : null, fact('Last used', ago(d.last_booted)), fact('Directory', d.path)),
        d.boot?.phases.length ? [h('h2', null, 'Its last boot'), waterfall(d.boot, false), h('h2', null, 'Serial port'), serialLog(d)] : null)),
  );
}
const fact = (k: string, v: string): Child => [h('dt', null, k), h('dd', null, v)];

