// What the page shows besides the photo: chips, the legend, messages.

export const $ = (id) => document.getElementById(id);

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

const percent = (share) => (share > 0 && share < 0.005 ? '<1 %' : `${Math.round(100 * share)} %`);

function swatch(colour) {
  const node = element('span', { className: 'swatch' });
  if (colour) node.style.backgroundColor = `rgb(${colour.join(' ')})`;
  else node.classList.add('none');
  return node;
}

/** Labels as chips. `colours` maps names to colours; `remove` is called with a name. */
export function showChips(labels, colours, remove) {
  $('chips').replaceChildren(...labels.map((label) => {
    const button = element('button', { type: 'button', textContent: '×' });
    button.setAttribute('aria-label', `Remove ${label}`);
    button.addEventListener('click', () => remove(label));
    return element('li', {}, swatch(colours.get(label)), element('span', { textContent: label }), button);
  }));
}

/** The regions found, the largest first. `isolated` is a position or null. */
export function showLegend(regions, isolated, { isolate, point }) {
  $('found').hidden = regions.length === 0;
  $('legend').replaceChildren(...regions.map((region, position) => {
    const isBackground = region.index === 0;
    const button = element(
      'button',
      { type: 'button' },
      swatch(isBackground ? null : region.colour),
      element('span', { className: 'name', textContent: region.name }),
      element('span', { className: 'number', textContent: percent(region.share) }),
    );
    if (region.score !== undefined) {
      const score = element('span', { className: 'number quiet', title: 'Mean cosine similarity' });
      score.append(element('span', { className: 'unseen', textContent: 'score ' }), region.score.toFixed(2));
      button.append(score);
    }
    button.setAttribute('aria-pressed', String(position === isolated));
    button.addEventListener('click', () => isolate(position));
    button.addEventListener('pointerenter', () => point(position));
    button.addEventListener('pointerleave', () => point(null));
    return element('li', {}, button);
  }));
}

/** Keeps the pressed state of the legend without making it anew, so that focus stays. */
export function pressLegend(isolated) {
  [...$('legend').querySelectorAll('button')].forEach((button, position) => {
    button.setAttribute('aria-pressed', String(position === isolated));
  });
}

/** `dog, 34 % of the photo, score 0.27` */
export function describe({ name, share, score }) {
  const end = score === undefined ? '' : `, score ${score.toFixed(2)}`;
  return `${name}, ${percent(share)} of the photo${end}`;
}

/** One line for everybody, read aloud by screen readers. */
export function say(text) {
  $('status').textContent = text;
}

/** What a screen reader says of the canvas. */
export function describeMap(text) {
  $('map').setAttribute('aria-label', text);
}

/** A message that stays until it is dismissed. */
export function showProblem(problem) {
  $('error-title').textContent = `${problem.title || 'Something went wrong'}.`;
  const tooBusy = problem.status === 429 ? ' Many people are using it right now.' : '';
  $('error-detail').textContent = problem.message === problem.title ? '' : problem.message + tooBusy;
  $('error').hidden = false;
  $('key-form').hidden = problem.status !== 401;
  if (problem.status === 401) $('key').focus();
}

export function hideProblem() {
  $('error').hidden = true;
}

/** A veil over the photo while something is computed; null takes it away. */
export function working(text) {
  $('working').hidden = text === null;
  if (text !== null) $('working-text').textContent = text;
}

/** The scale of a heat map; null takes it away. */
export function showScale(heat, paint) {
  $('scale').hidden = !heat;
  if (!heat) return;
  const [low, high] = scaleEnds(heat);
  $('scale-low').textContent = low;
  $('scale-high').textContent = high;
  $('scale-bar').setAttribute('aria-label', `Cosine similarity with ${heat.label}, from ${low} to ${high}`);
  paint($('scale-bar'), heat);
}

/** Values beyond the ends have the colours of the ends. */
export const scaleEnds = ({ scale: [low, high] }) => [`≤ ${low.toFixed(2)}`, `≥ ${high.toFixed(2)}`];

/** The name and score under the pointer; null takes it away. `x`, `y` in CSS pixels of the stage. */
export function showTip(region, x, y) {
  const tip = $('tip');
  tip.hidden = !region;
  if (!region) return;
  const score = region.score === undefined ? '' : `  ${region.score.toFixed(2)}`;
  tip.textContent = region.name + score;
  // To the left of the pointer where the right side has no room.
  const isRight = x > $('stage').clientWidth - 160;
  tip.style.left = isRight ? '' : `${x + 14}px`;
  tip.style.right = isRight ? `${$('stage').clientWidth - x + 14}px` : '';
  tip.style.top = `${Math.min(y + 14, $('stage').clientHeight - 34)}px`;
}

export function save(blob, name) {
  const url = URL.createObjectURL(blob);
  element('a', { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
