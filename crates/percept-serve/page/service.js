// The calls of the HTTP service that the page makes.

/** An answer that is no result: RFC 9457 problem details. */
export class Problem extends Error {
  constructor(status, title, detail, type) {
    super(detail || title);
    this.status = status;
    this.title = title;
    this.type = type;
  }
}

let key = '';

/** The key for all further calls. Kept in memory alone. */
export function useKey(value) {
  key = value;
}

async function call(path, options = {}) {
  const headers = { ...options.headers };
  if (key) headers.Authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Problem(0, 'The service does not answer', 'Is it still running?', 'offline');
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  const title = body.title || response.statusText || 'The service refused';
  throw new Problem(response.status, title, body.detail || '', (body.type || '').split('#').pop());
}

function post(path, fields, signal) {
  const headers = { 'Content-Type': 'application/json' };
  return call(path, { method: 'POST', headers, body: JSON.stringify(fields), signal });
}

/** What is served: `{ models: [{ name, … }], max_upload }`. */
export async function models() {
  return (await call('/v1/models')).json();
}

/** Uploads a photo; its tokens are computed once. Gives `{ session, width, height }`. */
export async function createSession(file, signal) {
  const body = new FormData();
  body.append('image', file, file.name || 'photo');
  return (await call('/v1/sessions', { method: 'POST', body, signal })).json();
}

/** Forgets a photo. Nobody minds if this fails. */
export function deleteSession(id) {
  call(`/v1/sessions/${id}`, { method: 'DELETE', keepalive: true }).catch(() => {});
}

/** The photo upright, as results line up with it. */
export async function photo(id, maxSide, signal) {
  return (await call(`/v1/sessions/${id}/photo?max_side=${maxSide}`, { signal })).blob();
}

/** Regions as JSON. `path` is `segment` or `group`. */
export async function regions(path, fields, signal) {
  return (await post(`/v1/${path}`, { ...fields, output: 'json' }, signal)).json();
}

/** How well one label fits each patch: `{ label, rows, columns, values, scale, colours }`. */
export async function similarity(fields, signal) {
  return (await post('/v1/segment', { ...fields, output: 'similarity' }, signal)).json();
}

/** A photo to try things on. */
export async function sample() {
  const blob = await (await call('/sample.jpg')).blob();
  return new File([blob], 'chelsea.jpg', { type: 'image/jpeg' });
}

/** Any other form of a result. */
export async function file(path, fields, signal) {
  return (await post(`/v1/${path}`, fields, signal)).blob();
}
