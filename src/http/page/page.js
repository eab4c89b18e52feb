// Asks /status every two seconds and shows it. Whatever comes from the source goes into text nodes only.
"use strict";

const PERIOD_MS = 2000;
const POINTS_MAX = 150;
// Rows of a table that are built at once; a filter finds the others.
const ROWS_MAX = 500;
const HOPS_IN = ["upserted", "deleted", "chunk_upserted"];

const byId = (id) => document.getElementById(id);
let last = null;
let before = null;
let rates = [];
let sortBy = "name";
let descending = false;

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined && text !== null) made.textContent = text;
  if (className) made.className = className;
  return made;
}

// Changes a text only if it is another, so that screen readers are not told it again.
function say(node, text, className) {
  if (node.textContent !== text) node.textContent = text;
  if (className !== undefined && node.className !== className) node.className = className;
}

const whole = new Intl.NumberFormat("en");
const number = (value) => (value === null || value === undefined ? "–" : whole.format(value));
const rate = (value) => (value === null ? "–" : value >= 10 || value === 0 ? whole.format(Math.round(value)) : value.toFixed(1));

function bytes(value) {
  if (value === null || value === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) { value /= 1024; unit += 1; }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

function time(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 120) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

function passed(status, table, hops) {
  const of = (status.traffic || {})[table] || {};
  return hops.reduce((sum, hop) => sum + (of[hop] || 0), 0);
}

// How much a figure rose per second between the last two answers of one process.
function perSecond(figure) {
  if (!before || !last || before.service.started_ms !== last.service.started_ms) return null;
  const seconds = (last.service.at_ms - before.service.at_ms) / 1000;
  return seconds > 0 ? Math.max(0, figure(last) - figure(before)) / seconds : null;
}

const rowRate = (table) => perSecond((status) => passed(status, table, HOPS_IN));

function mean(of) {
  const [now, then] = [of(last), before ? of(before) : { count: 0, seconds: 0 }];
  const count = now.count - then.count;
  const [seconds, times] = count > 0 ? [now.seconds - then.seconds, count] : [now.seconds, now.count];
  return times > 0 ? (seconds / times) * 1000 : null;
}

function showState(status) {
  const stopped = status.tables.filter((table) => table.phase === "stopped").length;
  const behind = stopped > 0 ? `, ${stopped} ${stopped === 1 ? "table has" : "tables have"} stopped` : "";
  if (status.service.ails) say(byId("state"), `ails: ${status.service.ails}`, "bad");
  else if (!status.service.ready) say(byId("state"), `not streaming: ${status.service.not_ready}`, "");
  else say(byId("state"), `streaming${behind}`, stopped > 0 ? "bad" : "good");
  say(byId("source"), status.source);
  document.title = `weir · ${status.source}`;
  const facts = [
    ["version", status.service.version], ["runs", status.service.role], ["for", time(status.service.at_ms - status.service.started_ms)],
    ["incarnation", number(status.epoch)], ["address", status.service.address || "–"],
  ];
  if (status.notice) facts.push(["notice", status.notice]);
  byId("facts").replaceChildren(...facts.map(([name, value]) => {
    const pair = element("div");
    pair.append(element("dt", name), element("dd", value));
    return pair;
  }));
}

function showFlow(status) {
  const { stages, flow } = status;
  const lags = status.tables.filter((table) => table.phase !== "stopped" && table.lag_ms !== null).map((table) => table.lag_ms);
  const behind = lags.length > 0 ? time(Math.max(...lags)) : "–";
  const streaming = status.tables.filter((table) => table.phase === "streaming").length;
  const total = perSecond((of) => of.tables.reduce((sum, table) => sum + passed(of, table.table, HOPS_IN), 0));
  const stops = [
    ["Source", `${rate(perSecond((of) => of.stages.source_events))} events/s`,
      [`${bytes(perSecond((of) => of.stages.source_row_bytes))}/s of rows`, `${number(stages.source_losses)} times lost`], flow.source_lost && `lost: ${flow.source_lost}`],
    ["Capture", `${rate(perSecond((of) => of.stages.publishes))} publishes/s`,
      [`${time(mean((of) => of.stages.publish_delay))} from change to publish`, `${number(stages.read_ahead_events)} events wait`]],
    ["Transport", bytes(flow.memory_held_bytes), [`of ${bytes(flow.memory_max_bytes)} held`, `${number(flow.publishes_outstanding)} publishes under way`]],
    ["Tables", `${rate(total)} rows/s`, [`${behind} behind at most`, `${streaming} of ${status.tables.length} streaming`, `${time(mean((of) => of.stages.commit))} a commit`]],
    ["Trace", `${number(stages.trace_counts)} counts`, [`${number(stages.trace_waiting_counts)} wait`], stages.trace_origins_behind > 0 && `${number(stages.trace_origins_behind)} logs to read`],
  ];
  byId("flow").replaceChildren(...stops.map(([name, main, more, trouble]) => {
    const stop = element("li");
    stop.append(element("strong", name), element("span", main, "main"), ...more.map((text) => element("span", text)));
    if (trouble) stop.append(element("span", trouble, "trouble"));
    return stop;
  }));
  if (total !== null) rates.push(total);
  rates = rates.slice(-POINTS_MAX);
  const most = Math.max(1, ...rates);
  const points = rates.map((value, at) => `${(at * 300) / (POINTS_MAX - 1)},${(38 - (value / most) * 36).toFixed(1)}`);
  document.querySelector("#rate polyline").setAttribute("points", points.join(" "));
  if (rates.length > 0) say(byId("rate-said"), `${rate(rates[rates.length - 1])} now, ${rate(most)} at most`);
}

const KEYS = {
  name: (table) => table.table,
  phase: (table) => table.phase,
  lag: (table) => table.lag_ms ?? -1,
  rate: (table) => rowRate(table.table) ?? -1,
  rows: (table) => table.rows ?? -1,
  files: (table) => table.files ?? -1,
  bytes: (table) => table.bytes ?? -1,
};

function sorted(tables) {
  const key = KEYS[sortBy];
  const order = (a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0);
  const found = [...tables].sort((a, b) => order(a, b) || (a.table < b.table ? -1 : 1));
  return descending ? found.reverse() : found;
}

function loadCell(load) {
  const cell = element("td");
  if (!load) return cell;
  const bar = element("progress");
  bar.max = load.chunks;
  bar.value = load.chunks_done;
  bar.setAttribute("aria-label", `${load.chunks_done} of ${load.chunks} chunks`);
  const left = load.seconds_left === null ? "" : `, ${time(load.seconds_left * 1000)} left`;
  cell.append(bar, ` ${load.part ? "part: " : ""}${load.chunks_done} of ${load.chunks} chunks${left}`);
  return cell;
}

function moment(at) {
  const stamp = element("time", new Date(at).toLocaleString());
  stamp.dateTime = at;
  return stamp;
}

// Since when all rows are known to be equal, or what a comparison has found.
function provenCell(proof) {
  const cell = element("td");
  if (!proof) return cell;
  const found = proof.found || {};
  const kinds = ["missing", "extra", "different", "lost_files"].filter((kind) => found[kind] > 0);
  if (kinds.length > 0) cell.append(element("span", kinds.map((kind) => `${number(found[kind])} ${kind.replace("_", " ")}`).join(", "), "phase stopped"));
  else if (proof.verified_through) cell.append(moment(proof.verified_through));
  else if (proof.ranges_proven > 0) cell.append(`${number(proof.ranges_proven)} of ${number(proof.ranges)} ranges`);
  if (proof.not_compared) cell.append(element("span", `Not compared: ${proof.not_compared}`, "why"));
  return cell;
}

function showTables(status) {
  const wanted = byId("filter").value.trim().toLowerCase();
  const shown = sorted(status.tables.filter((table) => `${table.table} ${table.phase}`.toLowerCase().includes(wanted)));
  const rows = shown.slice(0, ROWS_MAX).map((table) => {
    const row = element("tr");
    const name = element("th", table.table);
    name.scope = "row";
    if (table.last_error) name.append(element("span", table.last_error, "why"), element("span", `Way out: ${table.way_out}`, "why"));
    const phase = element("td");
    phase.append(element("span", table.phase, `phase ${table.phase}`));
    const lag = table.lag_ms === null ? "–" : table.lag_ms === 0 ? "0" : time(table.lag_ms) + (table.lag_transactions === null ? "" : `, ${number(table.lag_transactions)} tx`);
    row.append(name, phase, element("td", lag, "number"), element("td", rate(rowRate(table.table)), "number"),
      element("td", number(table.rows), "number"), element("td", number(table.files), "number"),
      element("td", bytes(table.bytes), "number"), element("td", number(table.version), "number"), provenCell(table.proof), loadCell(table.load));
    return row;
  });
  document.querySelector("#tables tbody").replaceChildren(...rows);
  const more = shown.length > ROWS_MAX ? `, the first ${ROWS_MAX} shown` : "";
  say(byId("tables-count"), `${shown.length} of ${status.tables.length}${more}`);
  byId("tables-none").hidden = rows.length > 0;
  showAccounts(status, shown.slice(0, ROWS_MAX));
}

function showAccounts(status, tables) {
  const rows = tables.map(({ table, proof }) => {
    const of = (...hops) => passed(status, table, hops);
    const row = element("tr");
    const name = element("th", table);
    name.scope = "row";
    const figures = [of("captured"), of("published"), of("consumed"), of("upserted"), of("deleted"), of("superseded", "stale", "duplicate"), of("chunk_upserted")];
    const waiting = of("published") - of("consumed");
    const whole = status.service.role === "apply" ? "captured elsewhere" : waiting > 0 ? `${number(waiting)} on their way` : "none";
    const balanced = element("td");
    if (proof && proof.hops_unbalanced > 0) balanced.append(element("span", `${number(proof.hops_unbalanced)} do not add up`, "phase stopped"));
    else if (proof && proof.hops_balanced) balanced.append(moment(proof.hops_balanced));
    row.append(name, ...figures.map((figure) => element("td", number(figure), "number")), element("td", whole), balanced);
    return row;
  });
  document.querySelector("#accounts tbody").replaceChildren(...rows);
}

function showErrors(status) {
  const items = status.errors.map((error) => {
    const item = element("li");
    const when = element("span", "", "when");
    const at = new Date(error.at_ms);
    const stamp = element("time", at.toLocaleString());
    stamp.dateTime = at.toISOString();
    when.append(stamp, error.table ? ` · ${error.table}` : "");
    const way = element("p");
    way.append(element("strong", "Way out: "), error.way_out);
    item.append(when, element("p", error.what), way);
    return item;
  });
  byId("errors").replaceChildren(...items);
  byId("errors-none").hidden = items.length > 0;
  say(byId("errors-count"), items.length > 0 ? number(items.length) : "");
}

async function look() {
  try {
    const answer = await fetch("/status", { signal: AbortSignal.timeout(20000) });
    const status = await answer.json();
    if (!answer.ok) throw new Error(status.error || answer.statusText);
    before = last;
    last = status;
    showState(status);
    showFlow(status);
    showTables(status);
    showErrors(status);
  } catch (error) {
    say(byId("state"), `no answer from the service: ${error.message}`, "bad");
  } finally {
    setTimeout(look, PERIOD_MS);
  }
}

for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => {
    descending = sortBy === button.dataset.by ? !descending : button.dataset.by !== "name" && button.dataset.by !== "phase";
    sortBy = button.dataset.by;
    for (const head of document.querySelectorAll("#tables thead th")) head.removeAttribute("aria-sort");
    button.closest("th").setAttribute("aria-sort", descending ? "descending" : "ascending");
    if (last) showTables(last);
  });
}
byId("filter").addEventListener("input", () => { if (last) showTables(last); });
look();
