// The page: a photo, some labels, and what the service makes of them.

import { indexMap, paintPicture, paintRegions } from './canvas.js';
import * as service from './service.js';
import {
  $, describe, describeMap, hideProblem, pressLegend, save, say, showChips, showLegend, showProblem,
  showTip, working,
} from './view.js';

/** Longest side of what is shown, in pixels. Downloads have the photo's own size. */
const SHOWN_SIDE = 1600;

const state = {
  file: null, // as picked
  session: null, // { session, width, height }
  labels: [],
  mode: 'words',
  result: null, // { width, height, regions }
  map: null, // index of the region of each pixel
  isolated: null,
};

// A newer wish ends the older one, on the service too.
let uploading = new AbortController();
let asking = new AbortController();

function newer(before) {
  before.abort();
  return new AbortController();
}

function failed(error) {
  if (error.name === 'AbortError') return;
  working(null);
  say('');
  showProblem(error);
}

// --- the photo

async function open(file) {
  if (!file) return;
  hideProblem();
  uploading = newer(uploading);
  asking.abort();
  const { signal } = uploading;
  if (state.session) service.deleteSession(state.session.session);
  Object.assign(state, { file, session: null, result: null, map: null, isolated: null });
  $('empty').hidden = true;
  $('stage').hidden = false;
  showResult();
  working('Looking at the photo…');
  say('');
  // The browser's own rendering until the service's arrives, which is the one that masks line up with.
  show(file);
  try {
    state.session = await service.createSession(file, signal);
    const { session, width, height } = state.session;
    $('stage').style.aspectRatio = `${width} / ${height}`;
    $('stage').style.setProperty('--ratio', width / height);
    const [upright] = await Promise.all([service.photo(session, SHOWN_SIDE, signal), update()]);
    show(upright);
  } catch (error) {
    if (error.name === 'AbortError') return;
    close();
    // With a key, the same photo may be taken.
    if (error.status === 401) state.file = file;
    failed(error);
  }
}

function show(blob) {
  const photo = $('photo');
  const url = URL.createObjectURL(blob);
  photo.onload = photo.onerror = () => URL.revokeObjectURL(url);
  photo.src = url;
}

function close() {
  Object.assign(state, { file: null, session: null, result: null, map: null, isolated: null });
  $('photo').removeAttribute('src');
  $('stage').hidden = true;
  $('empty').hidden = false;
  $('another').hidden = true;
  showResult();
}

// --- what the service is asked

function request() {
  const fields = { session: state.session.session };
  if (state.mode === 'groups') {
    const groups = Math.min(20, Math.max(2, Math.round(Number($('groups').value)) || 8));
    return { path: 'group', fields: { ...fields, groups } };
  }
  const background = $('background').value;
  return { path: 'segment', fields: { ...fields, labels: state.labels, background } };
}

/** Asks for what is to be shown now. Image tokens are kept by the service: only the text changes. */
async function update() {
  if (!state.session) return;
  asking = newer(asking);
  const { signal } = asking;
  if (state.mode !== 'groups' && state.labels.length === 0) {
    Object.assign(state, { result: null, map: null, isolated: null });
    working(null);
    showResult();
    say('Name something to look for, or show the groups.');
    return;
  }
  // Quick answers need no veil.
  const veil = setTimeout(() => working('Working…'), 400);
  try {
    await ask(signal);
    hideProblem();
  } catch (error) {
    if (error.status === 404 && error.type === 'no-session' && state.file) {
      // The service has forgotten the photo, or was started anew.
      open(state.file);
    } else {
      failed(error);
    }
  } finally {
    clearTimeout(veil);
    if (!signal.aborted) working(null);
  }
}

async function ask(signal) {
  const { path, fields } = request();
  const shown = { ...fields, max_side: SHOWN_SIDE };
  const wanted = [service.regions(path, shown, signal)];
  if (state.mode === 'heat') {
    const label = $('heat-label').value || state.labels[0];
    wanted.push(service.file(path, { ...shown, output: 'heatmap', label }, signal));
  }
  const [result, heat] = await Promise.all(wanted);
  const bitmap = heat && await createImageBitmap(heat);
  if (signal.aborted) return;
  const isolated = state.result?.regions[state.isolated]?.name;
  const again = result.regions.findIndex(({ name }) => name === isolated);
  Object.assign(state, { result, map: indexMap(result), isolated: again < 0 ? null : again, heat: bitmap });
  showResult();
  const notes = [];
  if (state.mode === 'words') {
    const found = new Set(result.regions.map(({ name }) => name));
    const missing = state.labels.filter((label) => !found.has(label));
    if (missing.length) notes.push(`Not found: ${missing.join(', ')}.`);
  }
  if (result.truncated.length) notes.push(`Too long and cut: ${result.truncated.join(', ')}.`);
  say(notes.join(' '));
}

// --- what is shown

function showResult() {
  const { result } = state;
  const regions = result ? result.regions : [];
  const colours = new Map(state.mode === 'groups' ? [] : regions.map((r) => [r.name, r.colour]));
  showChips(state.labels, colours, removeLabel);
  const listed = state.mode === 'heat' ? [] : regions;
  showLegend(listed, state.isolated, { isolate, point: (position) => paint(position) });
  $('downloads').hidden = !result;
  $('another').hidden = !state.session;
  paint(null);
  const names = regions.map(describe).join('; ');
  if (!result) describeMap('Nothing is marked yet');
  else if (state.mode === 'heat') describeMap(`Heat map of ${$('heat-label').value}`);
  else describeMap(`Regions: ${names}`);
}

/** Paints the map; a region that is pointed at in the legend is shown as if it were chosen. */
function paint(pointed) {
  const canvas = $('map');
  canvas.hidden = !state.result;
  if (!state.result) return;
  const alone = state.isolated ?? pointed;
  // What is dimmed stays so whatever the slider says.
  const opacity = alone === null || state.mode === 'heat' ? $('opacity').value / 100 : 1;
  canvas.style.opacity = opacity;
  if (state.mode === 'heat' && state.heat) paintPicture(canvas, state.heat);
  else paintRegions(canvas, state.map, state.result, alone);
}

function isolate(position) {
  state.isolated = state.isolated === position ? null : position;
  pressLegend(state.isolated);
  paint(null);
  const region = state.result?.regions[state.isolated];
  say(region ? `${describe(region)}: shown alone` : 'All regions are shown');
}

function regionAt(event) {
  if (!state.map) return null;
  const box = $('map').getBoundingClientRect();
  const { width, height } = state.result;
  const x = Math.floor((event.clientX - box.left) / box.width * width);
  const y = Math.floor((event.clientY - box.top) / box.height * height);
  if (x < 0 || y < 0 || x >= width || y >= height) return null;
  return state.map[y * width + x];
}

// --- labels

function addLabels(text) {
  const known = new Set(state.labels.map((label) => label.toLowerCase()));
  const added = [];
  for (const part of text.split(/[,\n]/)) {
    const label = part.trim().replace(/\s+/g, ' ');
    if (label && !known.has(label.toLowerCase())) {
      known.add(label.toLowerCase());
      added.push(label);
    }
  }
  if (added.length) setLabels([...state.labels, ...added]);
}

function removeLabel(label) {
  setLabels(state.labels.filter((other) => other !== label));
  $('label').focus();
}

function setLabels(labels) {
  state.labels = labels;
  const select = $('heat-label');
  const chosen = select.value;
  select.replaceChildren(...labels.map((label) => new Option(label, label)));
  if (labels.includes(chosen)) select.value = chosen;
  if (state.mode === 'groups' && labels.length) setMode('words');
  else update();
  showChips(labels, new Map(state.result?.regions.map((r) => [r.name, r.colour])), removeLabel);
}

function setMode(mode) {
  state.mode = mode;
  document.querySelector(`input[name=mode][value=${mode}]`).checked = true;
  state.isolated = null;
  $('groups-row').hidden = mode !== 'groups';
  $('heat-row').hidden = mode !== 'heat';
  $('background-row').hidden = mode !== 'words';
  update();
}

// --- events

const pick = () => $('file').click();
$('pick').addEventListener('click', pick);
$('another').addEventListener('click', pick);
$('file').addEventListener('change', ({ target }) => {
  open(target.files[0]);
  target.value = ''; // the same file again is a change too
});

document.addEventListener('dragover', (event) => {
  event.preventDefault();
  $('drop').classList.add('over');
});
document.addEventListener('dragleave', (event) => {
  if (!event.relatedTarget) $('drop').classList.remove('over');
});
document.addEventListener('drop', (event) => {
  event.preventDefault();
  $('drop').classList.remove('over');
  open(event.dataTransfer.files[0]);
});
document.addEventListener('paste', (event) => {
  const file = [...event.clipboardData.files].find(({ type }) => type.startsWith('image/'));
  if (!file) return;
  event.preventDefault();
  open(file);
});

$('label-form').addEventListener('submit', (event) => {
  event.preventDefault();
  addLabels($('label').value);
  $('label').value = '';
});
$('label').addEventListener('input', ({ target }) => {
  if (!target.value.includes(',') || target.value.trim() === ',') return;
  const parts = target.value.split(',');
  target.value = parts.pop().trimStart();
  addLabels(parts.join(','));
});
$('label').addEventListener('keydown', (event) => {
  if (event.key === 'Backspace' && !event.target.value && state.labels.length && !event.repeat) {
    setLabels(state.labels.slice(0, -1));
  }
});

document.querySelectorAll('input[name=mode]').forEach((radio) => {
  radio.addEventListener('change', () => setMode(radio.value));
});
for (const id of ['groups', 'heat-label', 'background']) $(id).addEventListener('change', update);
$('opacity').addEventListener('input', () => paint(null));

$('map').addEventListener('pointermove', (event) => {
  const position = state.mode === 'heat' ? null : regionAt(event);
  const box = $('stage').getBoundingClientRect();
  const region = position === null ? null : state.result.regions[position];
  showTip(region, event.clientX - box.left, event.clientY - box.top);
});
$('map').addEventListener('pointerleave', () => showTip(null));
$('map').addEventListener('click', (event) => {
  const position = state.mode === 'heat' ? null : regionAt(event);
  if (position !== null) isolate(position);
});
document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && state.isolated !== null) isolate(state.isolated);
});

document.querySelectorAll('[data-output]').forEach((button) => {
  button.addEventListener('click', async () => {
    const { output } = button.dataset;
    const { path, fields } = request();
    button.disabled = true;
    try {
      const blob = await service.file(path, { ...fields, output });
      const stem = (state.file.name || 'photo').replace(/\.[^.]*$/, '');
      save(blob, { mask: `${stem}.mask.png`, overlay: `${stem}.overlay.png`, rle: `${stem}.coco.json` }[output]);
    } catch (error) {
      failed(error);
    } finally {
      button.disabled = false;
    }
  });
});

$('error-close').addEventListener('click', hideProblem);
$('key-form').addEventListener('submit', (event) => {
  event.preventDefault();
  service.useKey($('key').value);
  $('key-form').hidden = true;
  hideProblem();
  introduce();
  if (state.file && !state.session) open(state.file);
});
window.addEventListener('pagehide', () => {
  if (state.session) service.deleteSession(state.session.session);
});

async function introduce() {
  try {
    const { models } = await service.models();
    const [model] = models;
    $('model').textContent = model.name;
    if (model.text) return;
    setMode('groups');
    say('This model has no text tower: it can show groups only.');
  } catch (error) {
    failed(error);
  }
}

introduce();
