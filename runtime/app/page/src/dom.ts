// A view is a tree of plain values; patch makes the page's own tree the same. What is
// the same stays, with its focus, selection and scroll position.

export type Mount = (el: HTMLElement) => (() => void) | void;
export interface Props {
  key?: string;
  // mount is called once with the element, and what it returns when that goes. What is
  // in the element is then its own affair.
  mount?: Mount;
  [name: string]: any;
}
export interface View { tag: string; props: Props; children: (View | string)[] }
export type Child = View | string | number | null | undefined | false | Child[];

export function h(tag: string, props?: Props | null, ...children: Child[]): View {
  return { tag, props: props ?? {}, children: flat(children) };
}

export function flat(all: Child[]): (View | string)[] {
  const out: (View | string)[] = [];
  for (const c of all) {
    if (Array.isArray(c)) out.push(...flat(c));
    else if (typeof c === 'number') out.push(String(c));
    else if (c) out.push(c);
  }
  return out;
}

interface Live extends HTMLElement { was?: View; gone?: (() => void) | void; handlers?: Record<string, (e: Event) => void> }

const drawn = new Set(['svg', 'path', 'circle', 'rect', 'line']);

function make(v: View | string): Node {
  if (typeof v === 'string') return document.createTextNode(v);
  const el = (drawn.has(v.tag) ? document.createElementNS('http://www.w3.org/2000/svg', v.tag) : document.createElement(v.tag)) as unknown as Live;
  update(el, v);
  if (v.props.mount) el.gone = v.props.mount(el);
  return el;
}

function update(el: Live, v: View) {
  const before = el.was?.props ?? {};
  el.was = v;
  if (!v.props.mount) patch(el, v.children);
  for (const name in before) if (!(name in v.props)) set(el, name, null);
  for (const name in v.props) if (v.props[name] !== before[name] || name === 'value' || name === 'checked') set(el, name, v.props[name]);
}

function set(el: Live, name: string, value: any) {
  if (name === 'key' || name === 'mount') return;
  if (name.startsWith('on')) {
    const kind = name.slice(2), known = (el.handlers ??= {});
    if (!(kind in known)) el.addEventListener(kind, (e) => known[kind]?.(e));
    known[kind] = value;
  } else if (name === 'checked' || (name === 'value' && el.tagName !== 'PROGRESS')) { // without a value, progress is under way
    const now = name === 'checked' ? !!value : String(value ?? '');
    if ((el as any)[name] !== now) (el as any)[name] = now;
  } else if (value === null || value === undefined || value === false) el.removeAttribute(name);
  else el.setAttribute(name, value === true ? '' : String(value));
}

function forget(n: Node) {
  (n as unknown as Live).gone?.();
  n.childNodes.forEach(forget);
}

const keyOf = (n: Node) => (n as unknown as Live).was?.props.key;

function same(n: Node, v: View | string): boolean {
  if (typeof v === 'string') return n.nodeType === 3;
  const was = (n as unknown as Live).was;
  return !!was && was.tag === v.tag && was.props.key === v.props.key;
}

export function patch(parent: Element, children: (View | string)[]) {
  const keyed = new Map<string, Node>();
  parent.childNodes.forEach((n) => { const k = keyOf(n); if (k !== undefined) keyed.set(k, n); });
  let at: Node | null = parent.firstChild;
  const drop = () => {
    const next = at!.nextSibling;
    forget(at!);
    parent.removeChild(at!);
    at = next;
  };
  const wanted = new Set(children.map((v) => (typeof v === 'string' ? undefined : v.props.key)));
  for (const v of children) {
    // What goes is taken out, and what stays is not moved about it: an element that moves
    // while a button is down gets no click.
    while (at && keyOf(at) !== undefined && !wanted.has(keyOf(at))) drop();
    const key = typeof v === 'string' ? undefined : v.props.key;
    const n = key !== undefined ? keyed.get(key) : at && keyOf(at) === undefined ? at : null;
    if (n && same(n, v)) {
      if (n === at) at = at.nextSibling;
      else parent.insertBefore(n, at);
      if (typeof v !== 'string') update(n as unknown as Live, v);
      else if (n.nodeValue !== v) n.nodeValue = v;
      continue;
    }
    parent.insertBefore(make(v), at);
  }
  while (at) drop();
}
