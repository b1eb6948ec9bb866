import RFB from './novnc/core/rfb.js';

const state = document.getElementById('state');
const url = new URL('screen', location.href);
url.protocol = 'ws:';
const rfb = new RFB(document.getElementById('screen'), url.href, { shared: true });
rfb.scaleViewport = true;
rfb.addEventListener('connect', () => { state.textContent = 'connected'; rfb.focus(); });
rfb.addEventListener('disconnect', () => { state.textContent = 'disconnected: reload to try again'; });
document.getElementById('cad').addEventListener('click', () => { rfb.sendCtrlAltDel(); rfb.focus(); });
