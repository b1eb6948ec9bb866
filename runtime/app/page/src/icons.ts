import { h } from './dom';

const paths: Record<string, string> = {
  cards: 'M2.5 2.5h4.5v4.5H2.5zM9 2.5h4.5v4.5H9zM2.5 9h4.5v4.5H2.5zM9 9h4.5v4.5H9z',
  back: 'M10 3 5 8l5 5', plus: 'M8 3v10M3 8h10', power: 'M8 2v6M4.5 4.5a5 5 0 1 0 7 0', play: 'M5 3.5v9l7-4.5z', stop: 'M4 4h8v8H4z',
  full: 'M2.5 6V2.5H6M10 2.5h3.5V6M13.5 10v3.5H10M6 13.5H2.5V10', camera: 'M2 5h3l1-2h4l1 2h3v8H2zM8 11a2 2 0 1 0 0-4 2 2 0 0 0 0 4Z',
  keys: 'M1.5 4h13v8h-13zM4 6.5h.5M6.5 6.5H7M9 6.5h.5M11.5 6.5h.5M5 9.5h6', paste: 'M5 3H3v11h10V3h-2M6 2h4v2.5H6zM5.5 8h5M5.5 10.5h5', term: 'M2 3h12v10H2zM4.5 6l2 2-2 2M8.5 10.5h3',
  log: 'M3 3h10M3 6h7M3 9h10M3 12h5', down: 'M8 2v8M4.5 7 8 10.5 11.5 7M3 13.5h10', up: 'M8 11V3M4.5 6 8 2.5 11.5 6M3 13.5h10', more: 'M3.5 8h.1M8 8h.1M12.5 8h.1', close: 'M4 4l8 8M12 4l-8 8',
  copy: 'M6 6h7v8H6zM10 6V2H3v8h3', folder: 'M2 4h4l1.5 2H14v7H2z', disc: 'M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12ZM8 9.2a1.2 1.2 0 1 0 0-2.4 1.2 1.2 0 0 0 0 2.4Z', sound: 'M2 6h2.5L8 3v10L4.5 10H2zM10.5 5.5a3.5 3.5 0 0 1 0 5M12.5 3.5a6.3 6.3 0 0 1 0 9', mute: 'M2 6h2.5L8 3v10L4.5 10H2zM10.5 6l4 4M14.5 6l-4 4', fit: 'M2 4h12v8H2zM5 7v2M11 7v2',
};
export const icon = (name: string) =>
  h('svg', { viewBox: '0 0 16 16', width: 16, height: 16, fill: 'none', stroke: 'currentColor', 'stroke-width': name === 'more' ? 2.2 : 1.4, 'stroke-linecap': 'round', 'stroke-linejoin': 'round', 'aria-hidden': 'true', class: 'icon' }, h('path', { d: paths[name] ?? '' }));
