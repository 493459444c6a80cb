// The page: a photo, some labels, and what the service makes of them.

import {
  heatValues, indexMap, paintHeat, paintRegions, paintScale, seen, shrunk,
} from './canvas.js';
import * as service from './service.js';
import {
  $, describe, describeMap, hideProblem, pressLegend, save, say, scaleEnds, showChips, showLegend,
  showProblem, showScale, showTip, working,
} from './view.js';

/** Longest side of what is shown, in pixels. Downloads have the photo's own size. */
const SHOWN_SIDE = 1600;

/** Time after the last key until what was typed is looked for, in milliseconds. */
const PAUSE = 500;

const state = {
  file: null, // as picked
  session: null, // { session, width, height }
  labels: [], // those that are kept
  draft: [], // those that are being typed
  notes: [], // what there is to say about the file
  maxUpload: Infinity, // bytes
  mode: 'words',
  result: null, // { width, height, regions }
  map: null, // index of the region of each pixel
  isolated: null,
  heat: null, // similarities of patches, and `pixels` of them
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

/** The photo on screen stays until the service has taken the new one: a wrong file costs nothing. */
async function open(file) {
  if (!file) return;
  hideProblem();
  uploading = newer(uploading);
  asking.abort();
  const { signal } = uploading;
  const isFirst = !state.session;
  $('empty').hidden = true;
  $('stage').hidden = false;
  working('Looking at the photo…');
  say('');
  // The browser's own rendering until the service's arrives, which is the one that masks line up with.
  if (isFirst) show(file);
  try {
    const kept = await upload(file, signal);
    if (state.session) service.deleteSession(state.session.session);
    Object.assign(state, { ...kept, result: null, map: null, heat: null, isolated: null });
    if (!isFirst) show(kept.file);
    const { session, width, height } = state.session;
    $('stage').style.aspectRatio = `${width} / ${height}`;
    $('stage').style.setProperty('--ratio', width / height);
    showResult();
    const [upright] = await Promise.all([service.photo(session, SHOWN_SIDE, signal), update()]);
    show(upright);
  } catch (error) {
    if (error.name === 'AbortError') return;
    if (!state.session || error.status === 404) close();
    // With a key, the same photo may be taken.
    if (error.status === 401) state.waiting = file;
    failed(error);
    if (state.session) say(`The photo before is still here. ${file.name || 'The new one'} was not taken.`);
  }
}

/** Sends a photo. One that is too large is made smaller here, as the command line makes it for the model. */
async function upload(file, signal) {
  const send = async (smaller) => {
    const session = await service.createSession(smaller?.file ?? file, signal);
    const notes = session.notes.map((note) => `Note: ${note}.`);
    if (smaller) {
      const [before, after] = [smaller.before, smaller.after].map((size) => size.join(' × '));
      notes.push(`The photo is too large for this service: your browser shrank it from ${before} to ${after} pixels.`);
    }
    return { file: smaller?.file ?? file, session, notes };
  };
  const fits = file.size <= state.maxUpload;
  try {
    if (fits) return await send(null);
  } catch (error) {
    if (error.status !== 413) throw error;
  }
  const smaller = await shrunk(file);
  if (smaller) return send(smaller);
  throw new service.Problem(413, 'Too large', 'The photo is too large, and your browser cannot shrink it.', 'too-large');
}

function show(blob) {
  const photo = $('photo');
  const url = URL.createObjectURL(blob);
  photo.onload = photo.onerror = () => URL.revokeObjectURL(url);
  photo.src = url;
}

function close() {
  Object.assign(state, { file: null, session: null, result: null, map: null, heat: null, isolated: null });
  $('photo').removeAttribute('src');
  $('stage').hidden = true;
  $('empty').hidden = false;
  showResult();
}

// --- what the service is asked

/** The labels kept, and what is being typed. */
function labelsInUse() {
  return [...state.labels, ...distinct(state.draft, state.labels)];
}

/** What the background is: one word, a number or words. */
function background() {
  const choice = $('background').value;
  if (choice === 'threshold') return String(Math.min(1, Math.max(-1, Number($('threshold').value) || 0)));
  if (choice === 'words') return $('background-words').value.trim() || 'none';
  return choice;
}

function request() {
  const fields = { session: state.session.session };
  if (state.mode === 'groups') {
    const groups = Math.min(20, Math.max(2, Math.round(Number($('groups').value)) || 8));
    return { path: 'group', fields: { ...fields, groups } };
  }
  return { path: 'segment', fields: { ...fields, labels: labelsInUse(), background: background() } };
}

/** Asks for what is to be shown now. Image tokens are kept by the service: only the text changes. */
async function update() {
  if (!state.session) return;
  asking = newer(asking);
  const { signal } = asking;
  if (state.mode !== 'groups' && labelsInUse().length === 0) {
    Object.assign(state, { result: null, map: null, heat: null, isolated: null });
    working(null);
    showResult();
    say(['Name something to look for, or show the groups.', ...state.notes].join(' '));
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
    const label = $('heat-label').value || fields.labels[0];
    wanted.push(service.similarity({ ...fields, label }, signal));
  }
  const [result, heat = null] = await Promise.all(wanted);
  if (signal.aborted) return;
  if (heat) heat.pixels = heatValues(heat, result.width, result.height);
  const isolated = state.result?.regions[state.isolated]?.name;
  const again = result.regions.findIndex(({ name }) => name === isolated);
  Object.assign(state, { result, map: indexMap(result), isolated: again < 0 ? null : again, heat });
  showResult();
  const notes = [];
  if (state.mode === 'words') {
    const found = new Set(result.regions.map(({ name }) => name));
    const missing = fields.labels.filter((label) => !found.has(label));
    if (missing.length) notes.push(`Not found: ${missing.join(', ')}.`);
  }
  if (result.truncated.length) notes.push(`Too long and cut: ${result.truncated.join(', ')}.`);
  say([...notes, ...state.notes].join(' '));
}

// --- what is shown

function showResult() {
  const { result } = state;
  const regions = result ? result.regions : [];
  const colours = new Map(state.mode === 'groups' ? [] : regions.map((r) => [r.name, r.colour]));
  showChips(state.labels, colours, removeLabel);
  const listed = state.mode === 'heat' ? [] : regions;
  showLegend(listed, state.isolated, { isolate, point: (position) => paint(position) });
  $('actions').hidden = !state.session;
  $('downloads').hidden = !result;
  // What is downloaded is what is seen.
  document.querySelectorAll('[data-output]').forEach((button) => {
    button.hidden = (button.dataset.output === 'seen') !== (state.mode === 'heat');
  });
  showScale(state.mode === 'heat' ? state.heat : null, paintScale);
  paint(null);
  const names = regions.map(describe).join('; ');
  if (!result) describeMap('Nothing is marked yet');
  else if (state.mode === 'heat') describeMap(`Heat map of ${state.heat?.label ?? ''}`);
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
  const { width, height } = state.result;
  if (state.mode === 'heat' && state.heat) paintHeat(canvas, state.heat.pixels, width, height, state.heat);
  else paintRegions(canvas, state.map, state.result, alone);
}

function isolate(position) {
  state.isolated = state.isolated === position ? null : position;
  pressLegend(state.isolated);
  paint(null);
  const region = state.result?.regions[state.isolated];
  say(region ? `${describe(region)}: shown alone` : 'All regions are shown');
}

/** The position of a pixel in the map; null outside of it. */
function pixelAt(event) {
  if (!state.map) return null;
  const box = $('map').getBoundingClientRect();
  const { width, height } = state.result;
  const x = Math.floor((event.clientX - box.left) / box.width * width);
  const y = Math.floor((event.clientY - box.top) / box.height * height);
  if (x < 0 || y < 0 || x >= width || y >= height) return null;
  return y * width + x;
}

/** What is under the pointer: a region, or the label of a heat map with its value there. */
function underPointer(event) {
  const at = pixelAt(event);
  if (at === null) return null;
  if (state.mode !== 'heat') return state.result.regions[state.map[at]];
  return state.heat && { name: state.heat.label, score: state.heat.pixels[at] };
}

// --- labels

/** Labels out of a text, those left out that are `known`. */
function labelsIn(text) {
  return text.split(/[,\n]/).map((part) => part.trim().replace(/\s+/g, ' ')).filter(Boolean);
}

function distinct(labels, known) {
  const seenBefore = new Set(known.map((label) => label.toLowerCase()));
  return labels.filter((label) => {
    const isNew = !seenBefore.has(label.toLowerCase());
    seenBefore.add(label.toLowerCase());
    return isNew;
  });
}

/** Keeps labels. What was looked for as it was typed need not be looked for again. */
function addLabels(text) {
  const before = labelsInUse();
  const added = distinct(labelsIn(text), state.labels);
  clearTimeout(typing);
  state.draft = [];
  if (added.length) setLabels([...state.labels, ...added], before);
}

let typing;

/** Looks for what is being typed once no key was pressed for a moment. */
function type(text) {
  clearTimeout(typing);
  typing = setTimeout(() => {
    const draft = labelsIn(text);
    if (draft.join() === state.draft.join()) return;
    state.draft = draft;
    labelsChanged();
  }, PAUSE);
}

function removeLabel(label) {
  setLabels(state.labels.filter((other) => other !== label));
  $('label').focus();
}

function setLabels(labels, shown = null) {
  state.labels = labels;
  showChips(labels, new Map(state.result?.regions.map((r) => [r.name, r.colour])), removeLabel);
  if (shown && state.result && shown.join() === labelsInUse().join()) return;
  labelsChanged();
}

function labelsChanged() {
  const labels = labelsInUse();
  const select = $('heat-label');
  const chosen = select.value;
  select.replaceChildren(...labels.map((label) => new Option(label, label)));
  if (labels.includes(chosen)) select.value = chosen;
  if (state.mode === 'groups' && labels.length) setMode('words');
  else update();
}

function setMode(mode) {
  state.mode = mode;
  document.querySelector(`input[name=mode][value=${mode}]`).checked = true;
  state.isolated = null;
  $('groups-row').hidden = mode !== 'groups';
  $('heat-row').hidden = mode !== 'heat';
  showBackground();
  update();
}

/** Shows the rows that the choice of a background needs. */
function showBackground() {
  const isWords = state.mode === 'words';
  const choice = $('background').value;
  $('background-row').hidden = !isWords;
  $('threshold-row').hidden = !isWords || choice !== 'threshold';
  $('background-words-row').hidden = !isWords || choice !== 'words';
}

// --- events

const pick = () => $('file').click();
$('pick').addEventListener('click', pick);
$('another').addEventListener('click', pick);
$('sample').addEventListener('click', async () => {
  try {
    const file = await service.sample();
    if (!labelsInUse().length && state.mode !== 'groups') addLabels('cat');
    await open(file);
  } catch (error) {
    failed(error);
  }
});
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
  const [file] = event.dataTransfer.files;
  if (file) open(file);
  else say('That is no file: save the photo first, then drop it here.');
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
  if (!target.value.includes(',') || target.value.trim() === ',') {
    type(target.value);
    return;
  }
  const parts = target.value.split(',');
  target.value = parts.pop().trimStart();
  addLabels(parts.join(','));
  type(target.value);
});
$('label').addEventListener('keydown', (event) => {
  if (event.key === 'Backspace' && !event.target.value && state.labels.length && !event.repeat) {
    setLabels(state.labels.slice(0, -1));
  }
});

document.querySelectorAll('input[name=mode]').forEach((radio) => {
  radio.addEventListener('change', () => setMode(radio.value));
});
for (const id of ['groups', 'heat-label', 'threshold', 'background-words']) {
  $(id).addEventListener('change', update);
}
$('background').addEventListener('change', () => {
  showBackground();
  update();
});
$('opacity').addEventListener('input', () => paint(null));

$('map').addEventListener('pointermove', (event) => {
  const box = $('stage').getBoundingClientRect();
  showTip(underPointer(event), event.clientX - box.left, event.clientY - box.top);
});
$('map').addEventListener('pointerleave', () => showTip(null));
$('map').addEventListener('click', (event) => {
  const at = state.mode === 'heat' ? null : pixelAt(event);
  if (at !== null) isolate(state.map[at]);
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
      const stem = (state.file.name || 'photo').replace(/\.[^.]*$/, '');
      const blob = output === 'seen'
        ? await seen($('photo'), $('map'), $('opacity').value / 100, $('scale-bar'), { label: state.heat.label, ends: scaleEnds(state.heat) })
        : await service.file(path, { ...fields, output });
      const endings = { mask: 'mask.png', overlay: 'overlay.png', rle: 'coco.json', seen: 'heat.png' };
      save(blob, `${stem}.${endings[output]}`);
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
  if (state.waiting) open(state.waiting);
  state.waiting = null;
});
window.addEventListener('pagehide', () => {
  if (state.session) service.deleteSession(state.session.session);
});

async function introduce() {
  try {
    const { models, max_upload: maxUpload } = await service.models();
    // Room for what stands around the photo in a form.
    state.maxUpload = maxUpload - 4096;
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
