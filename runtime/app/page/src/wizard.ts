import { h, type Child } from './dom';
import { base, get, post, put, remove, type Hardware, type Job, type Listing, type Medium, type System } from './api';
import { state, go, redraw, route } from './store';
import { size } from './format';
import { icon } from './icons';
import { act, dialog, failed } from './dialogs';
import { atHand, bar, jobText, lookForMedia, mediaTiles } from './library';

let systems: System[] | null = null;
const GB = 2 ** 30;
// What was chosen stays when the page is loaded again.
const fresh = { of: '', name: '', touched: false, arch: '', cpus: 2, memory: 4, disk: 64, network: 'nat', allow: '', drivers: '', tpm: false, secure: false, more: false };
const form = { ...fresh, ...kept(), checked: null as Medium | null, wrong: '', busy: false };
function kept(): Partial<typeof fresh> {
  try { return JSON.parse(sessionStorage.getItem('wizard') ?? '{}'); } catch { return {}; }
}
function keep() {
  const { checked, wrong, busy, ...rest } = form;
  sessionStorage.setItem('wizard', JSON.stringify(rest));
  redraw();
}
// What this host cannot give a desktop of an architecture, and why.
const lacks: Record<string, Hardware> = {};
function askHardware(arch: string) {
  if (arch in lacks) return;
  lacks[arch] = {};
  get<Hardware>('hardware?arch=' + arch).then((v) => { lacks[arch] = v; redraw(); }, failed);
}

export function load() {
  lookForMedia();
  get<System[]>('systems').then((all) => { systems = all; redraw(); }, failed);
}

// choose fills the form for what the address says: a file or a system.
function choose(file: string | null, system: string | null) {
  const of = file ? 'f' + file : 's' + (system ?? '');
  const other = form.of !== of;
  if (other) form.arch = systems?.find((s) => s.id === system)?.architecture ?? state.host.arch;
  if (!file) form.checked = null;
  else if (other || form.checked?.file !== file) {
    form.checked = (form.arch === state.host.arch && atHand()?.find((m) => m.file === file)) || null;
    if (!form.checked) check(file, other);
  }
  if (!other) return;
  const sys = systems?.find((s) => s.id === (system ?? form.checked?.system));
  const host = state.host.memory_bytes ? Math.max(0.5, Math.floor((2 * state.host.memory_bytes) / GB) / 2) : Infinity;
  Object.assign(form, fresh, { of, wrong: '', arch: form.arch, name: form.touched ? form.name : '', touched: form.touched });
  form.cpus = Math.max(1, Math.min(2, state.host.cpus));
  // What is not known to want more gets half of the host's memory at most.
  form.memory = sys?.memoryBytes ? Math.min(sys.memoryBytes / GB, host) : Math.max(0.5, Math.min(4, Math.floor(host) / 2));
  form.disk = (sys?.diskBytes ?? 64 * GB) / GB;
  // As lumina desktop create has it: this one's installer goes on only with both.
  form.tpm = form.secure = sys?.osVariant === 'windows-11';
  form.drivers = sys?.osFamily === 'windows' ? atHand()?.find((m) => /virtio-win/i.test(m.name))?.file ?? '' : '';
  form.more = form.tpm || !!form.drivers;
  if (!form.touched) form.name = free(form.checked?.suggested ?? sys?.osVariant ?? (file ? 'desktop' : ''));
}
let asked = '';
function check(file: string, first: boolean) {
  if (asked === form.arch + file) return; // the answer is on its way
  asked = form.arch + file;
  post<Medium>('media/check', { file, arch: form.arch || undefined }).then((m) => {
    asked = '';
    if (form.of !== 'f' + file) return;
    form.checked = m;
    if (first && !form.touched) form.name = free(m.suggested);
    redraw();
  }, failed);
}
// emulate takes the architecture that a file is for.
function emulate(m: Medium) {
  form.arch = m.arch!;
  keep();
  check(m.file, false);
}
// free is a name that no desktop has.
function free(name: string): string {
  const taken = new Set(state.desktops.map((d) => d.name));
  let n = name;
  for (let i = 2; n && taken.has(n); i++) n = name + '-' + i;
  return n;
}

// What a job was to make is kept, for another try. Another app has other jobs.
const wished = (job: string) => `wish ${base} ${job}`;
async function again(job: string) {
  const was = JSON.parse(sessionStorage.getItem(wished(job)) ?? 'null');
  await remove('jobs/' + job);
  if (was) { Object.assign(form, was.rest); keep(); }
  location.hash = was?.from ?? '#/new';
}

async function create() {
  const { query } = route();
  form.busy = true;
  form.wrong = '';
  redraw();
  try {
    const wish = { ...form }, from = location.hash;
    const job = await post<Job>('desktops', { name: form.name, file: query.get('file') ?? '', system: query.get('system') ?? '', arch: form.arch, drivers: form.drivers, tpm: form.tpm, secure_boot: form.secure, cpus: form.cpus, memory_bytes: Math.round(form.memory * GB), disk_bytes: form.checked?.kind === 'disk' ? 0 : Math.round(form.disk * GB), network: form.network === 'allow' ? 'allow=' + form.allow : form.network });
    const { checked, wrong, busy, ...rest } = wish;
    sessionStorage.setItem(wished(job.id), JSON.stringify({ from, rest }));
    Object.assign(form, fresh);
    keep();
    if (!state.jobs.some((j) => j.id === job.id)) state.jobs.push(job);
    go('job/' + job.id);
  } catch (e) { form.wrong = (e as Error).message; }
  form.busy = false;
  redraw();
}

export function wizard(): Child {
  const { query } = route();
  const file = query.get('file'), system = query.get('system');
  const chosen = !!(file || system);
  if (chosen && systems && atHand()) choose(file, system);
  const m = form.checked, sys = systems?.find((s) => s.id === (system ?? m?.system));
  const here = state.host.arch;
  const cannot = lacks[form.arch] ?? {};
  if (chosen && form.arch) askHardware(form.arch);
  const reason = form.wrong || m?.reason || state.host.no_desktops || '';
  // No setting makes it boot.
  const hopeless = !!m?.reason && !form.wrong && !m.arch;
  const page = sys && system && !sys.url.endsWith('.iso');
  return h('main', { class: 'wizard', key: 'wizard' },
    h('header', null, h('a', { class: 'button ghost', href: '#/library', 'aria-label': 'Back to the library' }, icon('back')), h('h1', null, 'New desktop')),
    h('div', { class: 'two' },
      h('div', null,
        h('h2', null, 'A file of mine'),
        h('div', { class: 'tiles' }, mediaTiles(file), file && !(atHand() ?? []).some((x) => x.file === file) ? h('a', { class: 'tile', 'aria-current': 'true', href: location.hash, title: file }, h('span', { class: 'glyph' }, icon('disc')), h('span', { class: 'grow' }, h('b', null, file.split('/').pop()), h('small', null, m ? (m.reason ? 'does not boot here' : size(m.size_bytes)) : ''))) : null,
          h('button', { class: 'tile quiet', onclick: () => browse('', (f) => go('new?file=' + encodeURIComponent(f))) }, h('span', { class: 'glyph' }, icon('folder')), h('span', { class: 'grow' }, h('b', null, 'Choose a file…'), h('small', null, 'or drop one anywhere on this page')))),
        h('h2', null, 'The catalogue'),
        h('div', { class: 'tiles' }, [...(systems ?? [])].sort((a, b) => Number(a.architecture !== here) - Number(b.architecture !== here)).map((s) => h('a', { key: s.id, class: 'tile' + (s.architecture !== here ? ' dim' : ''), href: '#/new?system=' + s.id, 'aria-current': system === s.id ? 'true' : null },
          h('span', { class: 'glyph letter ' + s.osVariant.split('-')[0] }, s.name[0]), h('span', { class: 'grow' }, h('b', null, s.name), h('small', null, s.architecture, s.architecture !== here ? ' · emulated here, slow' : '', s.url.endsWith('.iso') ? ' · downloads' : ' · from its vendor’s page')))))),
      h('form', { class: 'panel', 'aria-label': 'The new desktop', onsubmit: (e: Event) => { e.preventDefault(); create(); } },
        chosen ? [
          h('p', { key: 'what', class: 'what' }, icon('disc'), h('b', null, m?.name ?? sys?.name ?? ''), h('span', { class: 'muted' }, m?.arch ?? sys?.architecture ?? '')),
          reason ? h('div', { key: 'reason', class: 'wrong box', role: 'alert' }, reason, m?.reason && m.arch && m.arch !== form.arch ? h('div', { class: 'row' }, h('button', { type: 'button', onclick: () => emulate(m) }, `Emulate ${m.arch}, slowly`)) : hopeless ? h('div', { class: 'row' }, chooseFile('Choose another file…')) : null) : null,
          !reason && form.arch && form.arch !== here ? h('p', { key: 'emulated', class: 'box' }, `It is for ${form.arch}, and this host is ${here}: it is emulated, and slow.`) : null,
          page ? h('p', { key: 'vendor', class: 'box' }, 'Its vendor has the ISO behind a page: ', h('a', { href: sys.url, target: '_blank', rel: 'noreferrer' }, sys.url), '. Download it there, then choose the file here.', h('span', { class: 'row' }, chooseFile('Choose the file…'))) : null,
          hopeless ? null : [h('label', { key: 'name' }, 'Name', h('input', { type: 'text', value: form.name, required: true, autocomplete: 'off', spellcheck: 'false', oninput: (e: any) => { form.name = e.target.value; form.touched = true; keep(); } })),
          slider('CPUs', 'cpus', 1, Math.max(state.host.cpus, 1), 1, (v) => `${v} of ${state.host.cpus}`),
          slider('Memory', 'memory', 0.5, Math.max(1, Math.floor(state.host.memory_bytes / GB)), 0.5, (v) => `${v} GB of ${Math.round(state.host.memory_bytes / GB)} GB`, sys?.memoryBytes ? sys.memoryBytes / GB : 0),
          m?.kind === 'disk' ? h('p', { key: 'copy', class: 'muted' }, 'Its disk is a copy of this one.') : slider('Disk', 'disk', 8, 512, 8, (v) => `up to ${v} GB; ${size(state.host.free_bytes)} are free`, sys?.diskBytes ? sys.diskBytes / GB : 0),
          h('fieldset', { key: 'network' }, h('legend', null, 'Network'), [['nat', 'the internet'], ['none', 'nothing'], ['allow', 'only …']].map(([v, t]) => h('label', { class: 'radio' }, h('input', { type: 'radio', name: 'network', value: v, checked: form.network === v, onchange: () => { form.network = v!; keep(); } }), t)),
            form.network === 'allow' ? h('input', { type: 'text', 'aria-label': 'What it may reach', placeholder: 'example.org:443,*.debian.org', value: form.allow, oninput: (e: any) => { form.allow = e.target.value; keep(); } }) : null),
          // Not by its toggle event, which comes too late for a page that is loaded again.
          h('details', { key: 'more', open: form.more }, h('summary', { onclick: (e: Event) => { e.preventDefault(); form.more = !form.more; keep(); } }, 'Drivers, TPM, Secure Boot'),
            h('label', null, 'Second ISO, such as virtio-win’s drivers for Windows', h('span', { class: 'row' }, h('input', { type: 'text', id: 'drivers', list: 'isos', placeholder: 'none', spellcheck: 'false', autocomplete: 'off', value: form.drivers, oninput: (e: any) => { form.drivers = e.target.value; keep(); } }), h('button', { type: 'button', onclick: () => browse('', (f) => { form.drivers = f; keep(); }) }, 'Choose…')),
              h('datalist', { id: 'isos' }, (atHand() ?? []).filter((x) => x.kind === 'iso' && x.file !== file).map((x) => h('option', { value: x.file })))),
            tick('TPM 2.0', 'tpm', cannot.no_tpm), tick('Secure Boot', 'secure', cannot.no_secure_boot, 'only what Microsoft’s keys have signed starts')),
          h('div', { class: 'row end' }, h('button', { id: 'create', key: form.of, class: 'primary', disabled: form.busy || !!m?.reason || !!page || !!state.host.no_desktops || !form.name}, form.busy ? 'Looking at it …' : system ? 'Download and start' : 'Create and start'))],
        ] : h('div', { class: 'choose' }, h('span', { class: 'glyph', 'aria-hidden': 'true' }, icon('disc')), h('b', null, 'Nothing is chosen yet'), h('p', { class: 'muted' }, 'Choose a file of yours or a system. Its CPUs, memory, disk and network are set here, and then it boots.')))));
}

const chooseFile = (label: string): Child => h('button', { type: 'button', onclick: () => browse('', (f) => go('new?file=' + encodeURIComponent(f))) }, label);
function tick(label: string, key: 'tpm' | 'secure', why?: string, hint = ''): Child {
  return h('label', { class: 'radio tick' }, h('input', { type: 'checkbox', id: key, checked: form[key], disabled: !!why && !form[key], onchange: (e: any) => { form[key] = e.target.checked; keep(); } }), label, h('small', { class: why && form[key] ? 'wrong' : '' }, why ?? hint));
}
function slider(label: string, key: 'cpus' | 'memory' | 'disk', min: number, max: number, step: number, text: (v: number) => string, least = 0): Child {
  const v = form[key];
  return h('label', { key, class: 'slider' }, h('span', null, label, h('output', null, text(v))), h('input', { type: 'range', min, max: Math.max(max, v), step, value: v, oninput: (e: any) => { form[key] = Number(e.target.value); keep(); } }),
    least && v < least ? h('small', { class: 'wrong' }, `less than the ${least} GB that it wants`) : null);
}

function browse(dir: string, chosen: (file: string) => void) {
  dialog('Choose a file', (close) => h('div', { class: 'browse', mount: (el) => {
    const show = async (at: string) => {
      let l: Listing;
      try { l = await get<Listing>('files?dir=' + encodeURIComponent(at)); } catch (e) { failed(e); return; }
      el.replaceChildren();
      const path = Object.assign(document.createElement('input'), { type: 'text', value: l.dir + (l.dir === '/' ? '' : '/') });
      path.setAttribute('aria-label', 'Path');
      const take = (file: string) => { close(); chosen(file); };
      path.onkeydown = (e) => { if (e.key === 'Enter') { if (/\.(iso|qcow2|raw|img)$/i.test(path.value)) take(path.value); else show(path.value); } };
      el.append(path);
      const row = (name: string, note: string, run: () => void) => {
        const b = document.createElement('button');
        b.className = 'option';
        b.append(Object.assign(document.createElement('span'), { textContent: name }), Object.assign(document.createElement('span'), { className: 'muted', textContent: note }));
        b.onclick = run;
        el.append(b);
      };
      if (l.parent) row('..', '', () => show(l.parent!));
      for (const f of l.files) row(f.name + (f.dir ? '/' : ''), f.dir ? '' : size(f.size_bytes ?? 0), () => (f.dir ? show : take)(l.dir.replace(/\/$/, '') + '/' + f.name));
      if (!l.files.length) el.append(Object.assign(document.createElement('p'), { className: 'muted', textContent: 'No ISO or disk image here.' }));
      path.focus();
    };
    show(dir);
  } }));
}

// dropped takes a file that was dropped on the page: one that is at hand by its path,
// another one is copied.
export async function dropped(file: File) {
  try {
    if (!/\.(iso|qcow2|raw|img)$/i.test(file.name)) throw new Error(`${file.name} is no ISO or disk image (.iso, .qcow2, .raw, .img).`);
    const head = await crypto.subtle.digest('SHA-256', await file.slice(0, 1 << 20).arrayBuffer());
    const hex = [...new Uint8Array(head)].map((b) => b.toString(16).padStart(2, '0')).join('');
    let m = await post<Medium>('media/find', { name: file.name, size_bytes: file.size, head_sha256: hex });
    if (!m.file) m = await put<Medium>('media/' + encodeURIComponent(file.name), file);
    await lookForMedia();
    go('new?file=' + encodeURIComponent(m.file));
  } catch (e) { failed(e); }
}

export function jobView(id: string): Child {
  const j = state.jobs.find((x) => x.id === id);
  if (j?.state === 'done' && j.result) {
    location.replace('#/desktop/' + j.result);
    return null;
  }
  return h('main', { class: 'wizard', key: 'job' }, h('header', null, h('a', { class: 'button ghost', href: '#/library', 'aria-label': 'Back to the library' }, icon('back')), h('h1', null, j?.subject ?? 'Nothing under way')),
    j ? h('div', { class: 'panel wide' }, j.state === 'running' ? bar(j) : null, h('p', { class: j.state === 'failed' ? 'wrong box' : '', role: 'status' }, jobText(j)), h('div', { class: 'row end' }, j.state === 'running' ? h('button', { onclick: act(async () => { await remove('jobs/' + j.id); go('library'); }) }, 'Cancel') : null, j.state === 'failed' ? h('button', { class: 'primary', onclick: act(() => again(j.id)) }, 'Try again') : null)) : h('p', { class: 'muted' }, 'It was finished, or the app that did it has ended.'));
}
