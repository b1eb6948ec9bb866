import { h, flat, patch, type Child } from './dom';
import { icon } from './icons';

// toast says something for some seconds, with one thing to do about it.
export function toast(text: string, action?: { label: string; run: () => void }, seconds = 6) {
  const el = document.createElement('div');
  el.className = 'toast';
  const close = () => el.remove();
  patch(el, flat([h('span', null, text), action && h('button', { onclick: () => { close(); action.run(); } }, action.label), h('button', { class: 'ghost', 'aria-label': 'Dismiss', onclick: close }, icon('close'))]));
  const all = document.getElementById('toasts')!;
  // What is modal hides what is not in it.
  const over = [...document.querySelectorAll('dialog[open]')].pop() ?? document.body;
  if (all.parentElement !== over) over.append(all);
  all.append(el);
  setTimeout(close, seconds * 1000);
}
export const failed = (e: unknown) => toast(e instanceof Error ? e.message : String(e), undefined, 12);
// act makes a handler of something that may fail.
export const act = (f: () => Promise<unknown>) => () => { f().catch(failed); };

export function dialog(title: string, body: (close: () => void) => Child): () => void {
  const el = document.createElement('dialog');
  el.setAttribute('aria-label', title);
  const before = document.activeElement as HTMLElement | null;
  const close = () => el.close();
  el.addEventListener('close', () => { const all = document.getElementById('toasts')!; if (el.contains(all)) document.body.append(all); el.remove(); before?.focus?.(); });
  el.addEventListener('click', (e) => { if (e.target === el) close(); });
  patch(el, [h('header', null, h('h2', null, title), h('button', { class: 'ghost', 'aria-label': 'Close', onclick: close }, icon('close'))), h('div', { class: 'body' }, body(close))]);
  document.body.append(el);
  el.showModal();
  (el.querySelector<HTMLElement>('[autofocus]') ?? el.querySelector<HTMLElement>('.body input'))?.focus();
  return close;
}

export function confirm(title: string, text: string, label: string, run: () => Promise<unknown>) {
  dialog(title, (close) => [h('p', null, text), h('div', { class: 'row end' }, h('button', { onclick: close }, 'Cancel'), h('button', { class: 'primary', autofocus: true, onclick: () => { close(); run().catch(failed); } }, label))]);
}

export function help() {
  const keys = [
    ['/', 'search'], ['n', 'new desktop'], ['Ctrl+K', 'do anything by its name'], ['j  k', 'next, previous'], ['Enter', 'open'], ['t', 'in a session: another terminal'], ['q', 'back; in the library, leave the app'], ['?', 'these keys'],
    ['Ctrl+Alt', 'on a screen: free the keyboard'], ['Ctrl+Shift+C', 'in a terminal: copy'], ['Ctrl+Shift+V', 'in a terminal: paste'],
  ];
  dialog('Keys', () => h('dl', { class: 'keys' }, keys.map(([k, what]) => [h('dt', null, h('kbd', null, k)), h('dd', null, what)])));
}

export interface Command { name: string; hint?: string; run: () => void; danger?: boolean }
export function palette(all: Command[]) {
  let at = 0, text = '', found: Command[] = all;
  let list: HTMLElement;
  const input = () => list.parentElement?.querySelector('input');
  const show = () => {
    found = all.filter((c) => text.split(/\s+/).every((w) => (c.name + ' ' + (c.hint ?? '')).toLowerCase().includes(w))).slice(0, 12);
    input()?.setAttribute('aria-activedescendant', found.length ? 'found' + at : '');
    patch(list, found.length ? found.map((c, i) => h('div', { id: 'found' + i, class: 'option', role: 'option', 'aria-selected': i === at ? 'true' : 'false', onclick: () => { close(); c.run(); } }, h('span', null, c.name), h('span', { class: 'muted' }, c.hint))) : [h('p', { class: 'muted' }, 'Nothing is called so.')]);
  };
  const close = dialog('Commands', () => [
    h('input', { type: 'text', class: 'big', placeholder: 'What to do, or where to go', 'aria-label': 'What to do', role: 'combobox', 'aria-expanded': 'true', 'aria-controls': 'found', 'aria-activedescendant': 'found0', autofocus: true,
      oninput: (e: any) => { text = e.target.value.toLowerCase(); at = 0; show(); },
      onkeydown: (e: KeyboardEvent) => {
        if (e.key === 'ArrowDown' || e.key === 'ArrowUp') { at = (at + (e.key === 'ArrowDown' ? 1 : found.length - 1)) % Math.max(1, found.length); show(); }
        else if (e.key === 'Enter' && found[at]) { close(); found[at]!.run(); }
        else return;
        e.preventDefault();
      } }),
    h('div', { id: 'found', role: 'listbox', 'aria-label': 'Found', mount: (el) => { list = el; show(); } }),
  ]);
}

// menu opens a list of things to do below a button.
export function menu(button: HTMLElement, items: Command[]) {
  // It is beside the page's own parts: it is one, too.
  const el = document.createElement('div');
  el.className = 'menu';
  el.setAttribute('role', 'region');
  el.setAttribute('aria-label', 'What can be done');
  const close = () => { el.remove(); removeEventListener('pointerdown', outside, true); };
  const outside = (e: Event) => { if (!el.contains(e.target as Node)) close(); };
  patch(el, [h('div', { role: 'menu', 'aria-label': button.getAttribute('aria-label') ?? '' }, items.map((c) => h('button', { role: 'menuitem', class: c.danger ? 'danger' : '', onclick: () => { close(); button.focus(); c.run(); } }, h('span', null, c.name), h('span', { class: 'muted' }, c.hint))))]);
  el.addEventListener('keydown', (e) => {
    const all = [...el.querySelectorAll('button')], i = all.indexOf(document.activeElement as HTMLButtonElement);
    if (e.key === 'Escape') { close(); button.focus(); }
    else if (e.key === 'ArrowDown') all[(i + 1) % all.length]!.focus();
    else if (e.key === 'ArrowUp') all[(i + all.length - 1) % all.length]!.focus();
    else return;
    e.preventDefault();
    e.stopPropagation();
  });
  const r = button.getBoundingClientRect();
  document.body.append(el);
  el.style.top = Math.min(r.bottom + 4, innerHeight - el.offsetHeight - 8) + 'px';
  el.style.left = Math.max(8, Math.min(r.left, innerWidth - el.offsetWidth - 8)) + 'px';
  addEventListener('pointerdown', outside, true);
  el.querySelector('button')?.focus();
}

export async function copy(text: string, what: string) {
  try {
    await navigator.clipboard.writeText(text);
    toast(what + ' copied');
  } catch { // the browser does not allow it: then by hand
    dialog('Copy', () => h('textarea', { rows: 10, 'aria-label': what, readonly: true, value: text, autofocus: true, onfocus: (e: any) => e.target.select() }));
  }
}
