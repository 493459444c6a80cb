// The page in headless Chromium, against a running service: what a person does, in order.
//
//   percept serve --model MODEL --addr 127.0.0.1:8099 &
//   cd tools/page && npm install && node test.mjs http://127.0.0.1:8099 SCREENSHOTS
//
// Needs Chromium (Debian: `apt install chromium`; CHROMIUM names another). Prints what was measured; the
// exit code is 1 where something is not as it should be.

import assert from 'node:assert/strict';
import { readFile, mkdir, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { crc32, deflateSync } from 'node:zlib';
import { chromium } from 'playwright-core';

const [url = 'http://127.0.0.1:8099', shots = 'screenshots'] = process.argv.slice(2);
const here = path.dirname(fileURLToPath(import.meta.url));
const photos = path.join(here, '../../examples/photos');
const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
await mkdir(shots, { recursive: true });

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox'],
});

/** A page that may reach nothing but the service, and fails on any error of its own. */
async function open(options) {
  const context = await browser.newContext({ acceptDownloads: true, bypassCSP: false, ...options });
  const page = await context.newPage();
  const faults = [];
  page.on('pageerror', (error) => faults.push(String(error)));
  page.on('request', (request) => {
    if (!/^(blob:|data:)/.test(request.url()) && !request.url().startsWith(url)) faults.push(request.url());
  });
  await page.goto(url);
  return { page, faults, close: () => context.close() };
}

/** Serious findings of axe-core. */
async function findings(page) {
  // The page's own policy forbids foreign scripts; this goes around it, as a debugger does.
  const session = await page.context().newCDPSession(page);
  await session.send('Runtime.evaluate', { expression: axe });
  const { result } = await session.send('Runtime.evaluate', {
    expression: 'axe.run().then((r) => JSON.stringify(r.violations.map(({ id, impact, nodes }) => ({ id, impact, nodes: nodes.map((n) => n.html) }))))',
    awaitPromise: true,
    returnByValue: true,
  });
  return JSON.parse(result.value);
}

async function accessible(page, what) {
  const found = await findings(page);
  const serious = found.filter(({ impact }) => impact === 'serious' || impact === 'critical');
  console.log(`axe-core, ${what}: ${found.length} findings, ${serious.length} serious`);
  assert.deepEqual(serious, [], what);
}

/** Whether a PNG says, before its pixels, that percept made it. */
const isResult = (png) => png.subarray(0, png.indexOf('IDAT')).includes('tEXtSoftware\0percept');

const settled = (page) => page.waitForFunction(() => document.getElementById('working').hidden
  && !document.getElementById('downloads').hidden);
const shot = (page, name) => page.screenshot({ path: path.join(shots, `${name}.png`), fullPage: true });

/** Whether the map lies on the photo: the boxes, and the sizes of what is in them. */
const aligned = (page) => page.evaluate(() => {
  const [photo, map] = [document.getElementById('photo'), document.getElementById('map')];
  const [a, b] = [photo.getBoundingClientRect(), map.getBoundingClientRect()];
  const same = ['left', 'top', 'width', 'height'].every((side) => Math.abs(a[side] - b[side]) < 0.01);
  const ratio = Math.abs((a.width / a.height) / (map.width / map.height) - 1) < 0.01;
  return { same, ratio, photo: [photo.naturalWidth, photo.naturalHeight], map: [map.width, map.height] };
});

async function upload(page, file) {
  const kept = page.waitForResponse((r) => r.url().includes('/photo?') && r.ok());
  await page.setInputFiles('#file', file);
  await kept;
  await page.waitForFunction(() => document.getElementById('photo').naturalWidth > 0);
}

async function addLabel(page, label) {
  await page.fill('#label', label);
  await page.press('#label', 'Enter');
}

// --- upload, labels, hover, isolate
{
  const { page, faults, close } = await open({ viewport: { width: 1280, height: 860 } });
  await page.waitForFunction(() => document.getElementById('model').textContent !== '');
  await accessible(page, 'empty');
  await shot(page, '1-empty');
  await upload(page, path.join(photos, 'chelsea.jpg'));
  await addLabel(page, 'cat');
  await settled(page);
  await page.fill('#label', 'grass, ');
  await settled(page);
  assert.equal(await page.locator('#chips li').count(), 2, 'a comma adds a label');
  await page.waitForFunction(() => document.querySelectorAll('#legend li').length > 0);
  const place = await aligned(page);
  assert.ok(place.same && place.ratio, JSON.stringify(place));
  assert.deepEqual(place.photo, place.map);
  await shot(page, '2-labels');
  await accessible(page, 'labels');

  const box = await page.locator('#map').boundingBox();
  await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
  await page.waitForFunction(() => !document.getElementById('tip').hidden);
  const tip = await page.textContent('#tip');
  assert.match(tip, /^.+ {2}-?\d\.\d\d$/, tip);
  console.log(`hover: "${tip}"`);
  await shot(page, '3-hover');

  await page.mouse.click(box.x + box.width / 2, box.y + box.height / 2);
  assert.equal(await page.locator('#legend [aria-pressed=true]').count(), 1, 'a click isolates');
  await page.mouse.move(0, 0);
  await shot(page, '4-isolated');
  await page.keyboard.press('Escape');
  assert.equal(await page.locator('#legend [aria-pressed=true]').count(), 0, 'Escape shows all');

  // By keyboard alone.
  await page.locator('#legend button').first().focus();
  await page.keyboard.press('Enter');
  assert.equal(await page.locator('#legend [aria-pressed=true]').count(), 1);
  await page.keyboard.press('Escape');

  // The slider blends.
  await page.fill('#opacity', '20');
  assert.equal(await page.evaluate(() => document.getElementById('map').style.opacity), '0.2');
  await page.fill('#opacity', '60');

  // Groups, then the heat map of one label.
  await page.check('input[value=groups]');
  await page.waitForFunction(() => document.querySelector('#legend .name')?.textContent.startsWith('group'));
  await shot(page, '5-groups');
  await page.fill('#groups', '4');
  await page.press('#groups', 'Tab');
  await page.waitForFunction(() => document.querySelectorAll('#legend li').length <= 4);
  await page.check('input[value=heat]');
  await page.waitForFunction(() => document.getElementById('map').getAttribute('aria-label').startsWith('Heat map'));
  await settled(page);
  // One scale for every label, a value under the pointer, and what is downloaded is what is seen.
  const ends = await page.locator('#scale span').allTextContents();
  assert.deepEqual(ends, ['≤ 0.10', '≥ 0.45']);
  const spot = await page.locator('#map').boundingBox();
  await page.mouse.move(spot.x + spot.width / 2, spot.y + spot.height / 2);
  await page.waitForFunction(() => !document.getElementById('tip').hidden);
  assert.match(await page.textContent('#tip'), /^cat {2}-?\d\.\d\d$/);
  await shot(page, '6-heat');
  await page.mouse.move(0, 0);
  assert.deepEqual(await page.locator('[data-output]:visible').allTextContents(), ['Heat map, PNG']);
  const picture = page.waitForEvent('download');
  await page.click('[data-output=seen]');
  const heat = await readFile(await (await picture).path());
  assert.equal(heat.readUInt32BE(16), 451);
  assert.ok(heat.readUInt32BE(20) > 300, 'with its bar');
  assert.ok(isResult(heat), 'says whose it is');
  await writeFile(path.join(shots, '6-heat-download.png'), heat);
  await page.selectOption('#heat-label', 'grass');
  await page.waitForFunction(() => document.getElementById('map').getAttribute('aria-label') === 'Heat map of grass');
  assert.deepEqual(await page.locator('#scale span').allTextContents(), ends);
  await accessible(page, 'heat map');
  await page.check('input[value=words]');
  await settled(page);

  // Downloads are of the photo's own size.
  for (const [output, check] of [
    ['mask', (bytes) => bytes.readUInt32BE(16) === 451 && bytes.readUInt32BE(20) === 300],
    ['overlay', (bytes) => bytes.readUInt32BE(16) === 451 && bytes.readUInt32BE(20) > 300],
    ['rle', (bytes) => JSON.parse(bytes).every(({ segmentation: { size } }) => size[0] === 300 && size[1] === 451)],
  ]) {
    const saved = page.waitForEvent('download');
    await page.click(`[data-output=${output}]`);
    const download = await saved;
    const bytes = await readFile(await download.path());
    assert.ok(check(bytes), `${output} as it should be`);
    assert.ok(output === 'rle' || isResult(bytes), `${output} says whose it is`);
    console.log(`download: ${download.suggestedFilename()}, ${bytes.length} bytes`);
  }

  // Removing a label, by its chip and by Backspace.
  await page.click('#chips li:first-child button');
  await page.press('#label', 'Backspace');
  assert.equal(await page.locator('#chips li').count(), 0);
  assert.deepEqual(faults, []);
  await close();
}

// --- labels apply as they are typed; every background; a sample; the usual screen of a laptop
{
  const { page, faults, close } = await open({ viewport: { width: 1366, height: 768 } });
  const kept = page.waitForResponse((r) => r.url().endsWith('/v1/sessions') && r.status() === 201);
  await page.click('#sample');
  assert.equal((await (await kept).json()).width, 451);
  await settled(page);
  assert.deepEqual(await page.locator('#chips li span:not(.swatch)').allTextContents(), ['cat']);
  const asked = (wanted) => page.waitForRequest((r) => r.url().endsWith('/v1/segment') && wanted(r.postDataJSON()));
  const typed = asked(({ labels }) => labels.join() === 'cat,sofa');
  await page.type('#label', 'sofa');
  await typed;
  assert.equal(await page.locator('#chips li').count(), 1, 'what is typed is no chip yet');
  await page.press('#label', 'Enter');
  assert.equal(await page.locator('#chips li').count(), 2);
  await settled(page);
  for (const [choice, field, value, expected] of [
    ['none', null, null, 'none'],
    ['threshold', '#threshold', '0.3', '0.3'],
    ['words', '#background-words', 'wall, grass', 'wall, grass'],
    ['auto', null, null, 'auto'],
  ]) {
    const request = asked(({ background }) => background === expected);
    await page.selectOption('#background', choice);
    if (field) {
      await page.fill(field, value);
      await page.press(field, 'Tab');
    }
    const answer = await (await request).response();
    assert.equal(answer.status(), 200, choice);
  }
  await settled(page);
  for (const place of ['#label', '#modes', '[data-output=mask]', '[data-output=rle]', '#another', '#status']) {
    const box = await page.locator(place).boundingBox();
    assert.ok(box.y >= 0 && box.y + box.height <= 768, `${place} is in view: ${JSON.stringify(box)}`);
  }
  await page.screenshot({ path: path.join(shots, '12-laptop.png') });

  // A wrong file costs nothing.
  const shown = await page.evaluate(() => document.getElementById('legend').textContent);
  await page.setInputFiles('#file', { name: 'notes.heic', mimeType: 'image/heic', buffer: Buffer.from('....ftypheic....mif1heic') });
  await page.waitForSelector('#error:not([hidden])');
  console.log(`wrong file: ${(await page.textContent('#error p')).trim()}`);
  assert.ok(await page.isVisible('#stage') && !await page.isVisible('#empty'));
  assert.equal(await page.evaluate(() => document.getElementById('legend').textContent), shown);
  assert.ok(await page.evaluate(() => document.getElementById('photo').naturalWidth) > 0);
  await page.screenshot({ path: path.join(shots, '13-wrong-file.png') });
  await addLabel(page, 'eye');
  await settled(page);

  // One that is too large is shrunk, and that is said.
  await page.setInputFiles('#file', { name: 'large.png', mimeType: 'image/png', buffer: greyPng(8000, 7000) });
  await page.waitForFunction(() => /shrank it from 8000 × 7000 to 3703 × 3240/.test(document.getElementById('status').textContent), null, { timeout: 60_000 });
  assert.deepEqual(faults, []);
  await close();
}

// --- errors are shown well
{
  const { page, faults, close } = await open({ viewport: { width: 1280, height: 860 } });
  await page.setInputFiles('#file', { name: 'notes.jpg', mimeType: 'image/jpeg', buffer: Buffer.from('no photo') });
  await page.waitForSelector('#error:not([hidden])');
  console.log(`error: ${(await page.textContent('#error p')).trim()}`);
  assert.ok(await page.isVisible('#empty'), 'another photo can be chosen');
  await shot(page, '7-error');
  await accessible(page, 'error');
  await page.click('#error-close');
  assert.ok(!await page.isVisible('#error'));
  await page.route('**/v1/segment', (route) => route.abort());
  await upload(page, path.join(photos, 'coffee.jpg'));
  await addLabel(page, 'cup');
  await page.waitForSelector('#error:not([hidden])');
  assert.match(await page.textContent('#error'), /does not answer/);
  await page.unroute('**/v1/segment');
  // A photo that was forgotten is sent again by itself.
  const kept = page.waitForResponse((r) => r.url().endsWith('/v1/sessions'));
  await upload(page, path.join(photos, 'coffee.jpg'));
  const { session } = await (await kept).json();
  await settled(page);
  assert.equal((await page.request.delete(`${url}/v1/sessions/${session}`)).status(), 204);
  const again = page.waitForResponse((r) => r.url().endsWith('/v1/sessions'));
  await addLabel(page, 'table');
  assert.notEqual((await (await again).json()).session, session);
  await settled(page);
  assert.ok(!await page.isVisible('#error'));
  assert.deepEqual(faults, []);
  await close();
}

// --- a photo that is dropped, and one that is pasted
{
  const { page, faults, close } = await open({ viewport: { width: 1000, height: 800 } });
  const photo = (await readFile(path.join(photos, 'coffee.jpg'))).toString('base64');
  for (const kind of ['drop', 'paste']) {
    const kept = page.waitForResponse((r) => r.url().endsWith('/v1/sessions') && r.status() === 201);
    await page.evaluate(async ([type, base64]) => {
      const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
      const data = new DataTransfer();
      data.items.add(new File([bytes], 'coffee.jpg', { type: 'image/jpeg' }));
      const init = { bubbles: true, cancelable: true, dataTransfer: data, clipboardData: data };
      document.body.dispatchEvent(type === 'drop' ? new DragEvent(type, init) : new ClipboardEvent(type, init));
    }, [kind, photo]);
    assert.equal((await (await kept).json()).width, 600, kind);
  }
  await addLabel(page, 'cup');
  await settled(page);
  assert.deepEqual(faults, []);
  await close();
}

// --- how soon labels change, on a photo of 1,000 x 750
{
  const { page, close } = await open({ viewport: { width: 1280, height: 860 } });
  const made = await page.evaluate(async () => {
    const canvas = Object.assign(document.createElement('canvas'), { width: 1000, height: 750 });
    const context = canvas.getContext('2d');
    for (let i = 0; i < 400; i++) {
      context.fillStyle = `hsl(${i * 37} 60% ${20 + (i * 13) % 60}%)`;
      context.fillRect((i * 131) % 1000, (i * 71) % 750, 40 + (i * 17) % 160, 30 + (i * 29) % 120);
    }
    return canvas.toDataURL('image/jpeg', 0.9).split(',')[1];
  });
  await upload(page, { name: 'made.jpg', mimeType: 'image/jpeg', buffer: Buffer.from(made, 'base64') });
  await addLabel(page, 'cat');
  await settled(page);
  const times = [];
  const words = ['dog', 'grass', 'sky', 'house', 'tree', 'car', 'water', 'street', 'bird', 'flower', 'table', 'boat'];
  for (const [i, word] of words.entries()) {
    times.push(await page.evaluate(async ([label, count]) => {
      const input = document.getElementById('label');
      input.value = label;
      const start = performance.now();
      document.getElementById('label-form').requestSubmit();
      // Shown: the answer is painted, and the frame with it is on its way to the screen.
      await new Promise((done) => {
        const before = document.getElementById('legend').firstChild;
        new MutationObserver((_, observer) => {
          if (document.getElementById('legend').firstChild === before) return;
          observer.disconnect();
          requestAnimationFrame(() => setTimeout(done));
        }).observe(document.getElementById('legend'), { childList: true });
      });
      if (document.querySelectorAll('#chips li').length !== count) throw new Error('no chip');
      return performance.now() - start;
    }, [word, i + 2]));
  }
  times.sort((a, b) => a - b);
  const [median, most] = [times[Math.floor(times.length / 2)], times.at(-1)];
  console.log(`label changes, 1000 x 750: median ${median.toFixed(0)} ms, most ${most.toFixed(0)} ms of ${times.length}`);
  assert.ok(median < 150, `median ${median}`);
  await close();
}

// --- photos that are turned or slender line up; a phone; dark
{
  const { page, faults, close } = await open({
    viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, colorScheme: 'dark', hasTouch: true, isMobile: true,
  });
  await shot(page, '8-phone-empty');
  await upload(page, path.join(photos, 'astronaut.jpg'));
  await addLabel(page, 'person, rocket');
  await settled(page);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
  assert.ok(!wide, 'nothing sticks out of a phone');
  await shot(page, '9-phone-dark');
  await accessible(page, 'phone, dark');
  const turned = await turnedPhoto(page);
  for (const [name, bytes, width, height] of turned) {
    await upload(page, { name: `${name}.jpg`, mimeType: 'image/jpeg', buffer: bytes });
    await settled(page);
    const place = await aligned(page);
    assert.deepEqual(place, { same: true, ratio: true, photo: [width, height], map: [width, height] }, name);
  }
  await shot(page, '10-turned');
  assert.deepEqual(faults, []);
  await close();
}

// --- the description of the API
{
  const { page, faults, close } = await open({ viewport: { width: 1000, height: 900 } });
  await page.goto(`${url}/docs#busy`);
  await page.waitForSelector('#calls h3');
  console.log(`docs: ${await page.locator('#calls h3').count()} calls`);
  await accessible(page, 'docs');
  await page.screenshot({ path: path.join(shots, '11-docs.png') });
  assert.deepEqual(faults, []);
  await close();
}

/** A PNG of one grey. */
function greyPng(width, height) {
  const chunk = (kind, data) => {
    const head = Buffer.alloc(4);
    head.writeUInt32BE(data.length);
    const body = Buffer.concat([Buffer.from(kind), data]);
    const end = Buffer.alloc(4);
    end.writeUInt32BE(crc32(body));
    return Buffer.concat([head, body, end]);
  };
  const header = Buffer.from([0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0]);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  const rows = deflateSync(Buffer.alloc((width + 1) * height), { level: 1 });
  const signature = Buffer.from('89504e470d0a1a0a', 'hex');
  return Buffer.concat([signature, chunk('IHDR', header), chunk('IDAT', rows), chunk('IEND', Buffer.alloc(0))]);
}

/** A JPEG stored on its side (EXIF orientation 6), and a slender one. */
async function turnedPhoto(page) {
  const draw = (width, height) => page.evaluate(([w, h]) => {
    const canvas = Object.assign(document.createElement('canvas'), { width: w, height: h });
    const context = canvas.getContext('2d');
    context.fillStyle = 'tomato';
    context.fillRect(0, 0, w / 2, h);
    return canvas.toDataURL('image/jpeg').split(',')[1];
  }, [width, height]);
  const stored = Buffer.from(await draw(320, 200), 'base64');
  const exif = Buffer.from('ffe10022' + '457869660000' + '4d4d002a00000008' + '0001011200030000000100060000' + '00000000', 'hex');
  const turned = Buffer.concat([stored.subarray(0, 2), exif, stored.subarray(2)]);
  return [['turned', turned, 200, 320], ['slender', Buffer.from(await draw(900, 41), 'base64'), 900, 41]];
}

await writeFile(path.join(shots, 'done.txt'), 'all as it should be\n');
await browser.close();
console.log('all as it should be');
