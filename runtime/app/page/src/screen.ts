// The screen of a desktop: noVNC, loaded when one is shown.
import RFB from '@novnc/novnc';

export interface Screen { ctrlAltDel(): void; fit(on: boolean): void; picture(): string; lit(): boolean; close(): void; focus(): void; free(): void; clipboard(text: string): void }

// Of a dark screen, at least this part of the pixels is of one colour. The firmware and
// QEMU write some words on it before anything is to be seen.
const dark = 0.985;

export function show(el: HTMLElement, url: string, told: { connected(on: boolean, why: string): void; captured(on: boolean): void; copied(text: string): void }): Screen {
  const rfb = new RFB(el, url, { shared: true });
  rfb.scaleViewport = true;
  rfb.background = 'transparent';
  rfb.addEventListener('connect', () => told.connected(true, ''));
  rfb.addEventListener('disconnect', (e: any) => told.connected(false, e.detail?.clean ? '' : 'the connection was lost'));
  rfb.addEventListener('clipboard', (e: any) => told.copied(e.detail.text));
  const canvas = () => el.querySelector('canvas');
  el.addEventListener('focusin', () => told.captured(true));
  el.addEventListener('focusout', () => told.captured(false));
  // Ctrl and Alt alone, pressed together and released, free the keyboard.
  let alone = false;
  const down = (e: KeyboardEvent) => { alone = e.ctrlKey && e.altKey && (e.key === 'Control' || e.key === 'Alt'); };
  const up = (e: KeyboardEvent) => { if (alone && (e.key === 'Control' || e.key === 'Alt')) { alone = false; setTimeout(() => { rfb.blur(); }, 0); } };
  el.addEventListener('keydown', down, true);
  el.addEventListener('keyup', up, true);
  const small = document.createElement('canvas');
  small.width = 64;
  small.height = 48;
  return {
    ctrlAltDel: () => rfb.sendCtrlAltDel(),
    fit: (on) => { rfb.scaleViewport = on; rfb.clipViewport = !on; rfb.dragViewport = false; },
    picture: () => canvas()?.toDataURL('image/png') ?? '',
    lit: () => {
      const c = canvas(), to = small.getContext('2d', { willReadFrequently: true });
      if (!c || !c.width || !to) return false;
      to.drawImage(c, 0, 0, small.width, small.height);
      const px = new Uint32Array(to.getImageData(0, 0, small.width, small.height).data.buffer), seen = new Map<number, number>();
      for (const p of px) seen.set(p, (seen.get(p) ?? 0) + 1);
      return Math.max(...seen.values()) < px.length * dark;
    },
    close: () => { try { rfb.disconnect(); } catch { /* it was not connected yet */ } },
    focus: () => rfb.focus(),
    free: () => rfb.blur(),
    clipboard: (text) => rfb.clipboardPasteFrom(text),
  };
}
