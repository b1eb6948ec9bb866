const units = ['B', 'KB', 'MB', 'GB', 'TB'];
// size is as the command line has it: powers of 1024 with short names.
export function size(n: number): string {
  let i = 0;
  while (n >= 1024 && i < units.length - 1) { n /= 1024; i++; }
  return (n >= 100 || i === 0 || Number.isInteger(n) ? Math.round(n) : n.toFixed(1)) + ' ' + units[i];
}
export function ago(t?: string): string {
  if (!t) return 'never';
  if (Date.parse(t) < 0) return ''; // nobody knows
  const s = (Date.now() - Date.parse(t)) / 1000;
  for (const [n, unit] of [[31536000, 'year'], [2592000, 'month'], [86400, 'day'], [3600, 'hour'], [60, 'minute']] as const)
    if (s >= n) { const k = Math.floor(s / n); return `${k} ${unit}${k > 1 ? 's' : ''} ago`; }
  return 'just now';
}
export function span(seconds: number): string {
  if (seconds < 90) return Math.round(seconds) + ' s';
  if (seconds < 5400) return Math.round(seconds / 60) + ' min';
  return (seconds / 3600).toFixed(1) + ' h';
}
// load is what something takes; how much CPU is known after some seconds.
export const load = (u: { cpu: number; memory: number }) => (Number.isNaN(u.cpu) ? '' : Math.round(u.cpu * 100) + ' % CPU · ') + size(u.memory);
// quote writes a word for a shell.
export const quote = (s: string) => (/^[\w%+,\-./:=@]+$/.test(s) ? s : "'" + s.replaceAll("'", "'\\''") + "'");
// plain is a guest's text without what is no text: escape sequences, controls, and what
// turns the direction of writing.
export const plain = (s: string) =>
  s.replace(/\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(\x07|\x1b\\)|\x1b./g, '').replace(/\r\n?/g, '\n')
    .replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, '').replace(/\n{3,}/g, '\n\n');
