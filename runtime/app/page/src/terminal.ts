// A terminal: xterm.js, loaded when one is shown.
import { Terminal } from '@xterm/xterm';
import { FitAddon } from '@xterm/addon-fit';
import { WebLinksAddon } from '@xterm/addon-web-links';
import { socket } from './api';

export interface Shown { close(): void; focus(): void }

// After how many bytes the app is told what was taken: it sends no more than 512 KB that
// were not, so that a flood of output neither freezes the page nor is lost.
const tellAfter = 64 << 10;

// What a terminal answers to a program that asks how it is: reports of the device, its
// state, the cursor, a mode, colours, strings. And what it tells of the focus.
const report = /^\x1b(\[[?>=]?[\d;]*\$?[cnRtxy]|\]|P)/, focused = /^\x1b\[[IO]$/;

export function show(el: HTMLElement, id: string, ended: (how: string) => void): Shown {
  const css = getComputedStyle(document.documentElement);
  const color = (name: string) => css.getPropertyValue(name).trim();
  const term = new Terminal({ fontFamily: 'ui-monospace, "SF Mono", Menlo, "DejaVu Sans Mono", Consolas, monospace', fontSize: 13, scrollback: 10000, cursorBlink: true, screenReaderMode: false, theme: { background: color('--term'), foreground: color('--term-ink'), cursor: color('--lamp') } });
  const fit = new FitAddon();
  term.loadAddon(fit);
  term.loadAddon(new WebLinksAddon((_e, uri) => window.open(uri, '_blank', 'noopener,noreferrer')));
  term.open(el);
  let ws: WebSocket, over = false, taken = 0, told = 0;
  // What was printed before the page came is shown again: what it asked was answered then.
  let received = 0, replayed = 0;
  // What is typed while there is no connection is sent when there is one.
  const typed: Uint8Array[] = [];
  const enter = (b: Uint8Array<ArrayBuffer>) => { if (ws.readyState === WebSocket.OPEN) ws.send(b); else if (typed.length < 1000) typed.push(b); };
  const say = (v: unknown) => { if (ws.readyState === WebSocket.OPEN) ws.send(JSON.stringify(v)); };
  const resize = () => { if (el.offsetWidth > 40) { fit.fit(); say({ rows: term.rows, columns: term.cols }); } };
  const connect = () => {
    ws = socket(`terminals/${id}?from=${taken}`);
    ws.onopen = () => { resize(); for (const b of typed.splice(0)) enter(b as Uint8Array<ArrayBuffer>); };
    ws.onmessage = (e) => {
      if (typeof e.data === 'string') {
        const v = JSON.parse(e.data);
        if (v.exit !== undefined) { over = true; ended(v.exit); }
        if (v.from !== undefined) { if (v.from !== taken) term.reset(); taken = told = received = v.from; replayed = v.end; }
        return;
      }
      const b = new Uint8Array(e.data), cut = replayed - received;
      received += b.length;
      for (const part of cut > 0 && cut < b.length ? [b.subarray(0, cut), b.subarray(cut)] : [b])
        term.write(part, () => {
          taken += part.length;
          if (taken - told >= tellAfter) { told = taken; say({ taken }); }
        });
    };
    ws.onclose = () => { if (!over) setTimeout(() => term.write('', () => !over && connect()), 500); }; // once all that came is shown
  };
  connect();
  const encode = new TextEncoder();
  term.onData((s) => {
    // Of two pages that show it, that which is seen answers.
    if (taken < replayed ? report.test(s) || focused.test(s) : report.test(s) && document.hidden) return;
    enter(encode.encode(s));
  });
  term.onBinary((s) => enter(Uint8Array.from(s, (c) => c.charCodeAt(0))));
  term.attachCustomKeyEventHandler((e) => {
    if (e.type === 'keydown' && e.ctrlKey && e.shiftKey && e.code === 'KeyC' && term.hasSelection()) { navigator.clipboard.writeText(term.getSelection()).catch(() => {}); e.preventDefault(); return false; }
    return !(e.ctrlKey && e.shiftKey && e.code === 'KeyV'); // the browser pastes
  });
  const watch = new ResizeObserver(resize);
  watch.observe(el);
  term.focus();
  return { close: () => { over = true; watch.disconnect(); ws.close(); term.dispose(); }, focus: () => term.focus() };
}
