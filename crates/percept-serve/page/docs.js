// Shows openapi.json as a page.

function element(tag, text, ...children) {
  const node = document.createElement(tag);
  if (text) node.textContent = text;
  node.append(...children);
  return node;
}

const description = await (await fetch('/openapi.json')).json();

/** What a `$ref` points to. */
function resolve(node) {
  if (!node?.$ref) return node;
  return node.$ref.slice(2).split('/').reduce((at, name) => at[name], description);
}

/** `integer, 32 to 2048, default 448` */
function typeOf(schema) {
  const { type, items, format, minimum, maximum, default: preset, enum: values, oneOf } = resolve(schema);
  if (oneOf) return oneOf.map(typeOf).join(' or ');
  let text = [type ?? 'any'].flat().filter((name) => name !== 'null').join(' or ');
  if (items) text = `list of ${typeOf(items)}`;
  if (format) text += ` (${format})`;
  if (values) text = values.filter((value) => value !== null).join(' | ');
  if (minimum !== undefined && maximum !== undefined) text += `, ${minimum} to ${maximum}`;
  if (preset !== undefined) text += `, default ${preset}`;
  return text;
}

function table(headings, rows, label) {
  const head = element('tr', '', ...headings.map((text) => {
    const cell = element('th', text);
    cell.scope = 'col';
    return cell;
  }));
  const body = rows.map((cells) => element('tr', '', ...cells.map((text, i) => (
    i === 0 ? element('td', '', element('code', text)) : element('td', text)))));
  const box = element('div', '', element('table', '', element('thead', '', head), element('tbody', '', ...body)));
  box.className = 'scroll';
  box.tabIndex = 0;
  box.setAttribute('role', 'region');
  box.setAttribute('aria-label', label);
  return box;
}

function show(path, method, call) {
  const name = element('span', method.toUpperCase());
  name.className = 'method';
  const title = element('h3', '', element('code', '', name, path));
  const parts = [title, element('p', call.description ?? call.summary)];
  const fields = (call.parameters ?? []).map(resolve)
    .map((p) => [p.name, typeOf(p.schema), p.description ?? '']);
  const body = resolve(call.requestBody)?.content;
  const schema = resolve(body?.['multipart/form-data']?.schema);
  for (const [field, about] of Object.entries(schema?.properties ?? {})) {
    const needed = schema.required?.includes(field) ? ', required' : '';
    fields.push([field, typeOf(about) + needed, resolve(about).description ?? about.description ?? '']);
  }
  if (schema?.description) parts.push(element('p', schema.description));
  if (fields.length) parts.push(table(['Field', 'Type', 'What'], fields, `Fields of ${path}`));
  const answers = Object.entries(call.responses).map(([status, response]) => {
    const { description: text, content } = resolve(response);
    return [status, Object.keys(content ?? {}).join(', '), text];
  });
  parts.push(table(['Status', 'Media type', 'What'], answers, `Answers of ${path}`));
  return parts;
}

document.getElementById('about').textContent = description.info.description;
for (const [path, calls] of Object.entries(description.paths)) {
  for (const [method, call] of Object.entries(calls)) {
    if (method !== 'parameters') document.getElementById('calls').append(...show(path, method, call));
  }
}
// The calls above have moved what an address may point to.
if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
