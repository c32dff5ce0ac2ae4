"use strict";
// Renders the page from its JSON block. Text of documents becomes text nodes, never markup.

const report = JSON.parse(document.getElementById("report").textContent);
for (const document of Object.values(report.documents)) {
  document.metrics = new Map(report.columns.map((name, at) => [name, document.metrics[at]]).filter(([, value]) => value !== null));
}
const embedded = new Map(Object.entries(report.documents));
const $ = id => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
let unit = "documents";

// ---------------------------------------------------------------- elements and words

function put(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (name.startsWith("--")) element.style.setProperty(name, value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat(9).filter(child => child !== null && child !== undefined && child !== ""));
  return element;
}
const make = (tag, attributes, ...children) => put(document.createElement(tag), attributes, children);
const draw = (tag, attributes, ...children) => put(document.createElementNS(SVG, tag), attributes, children);
const path = text => make("bdi", {}, text || "(no path)");
const tag = (kind, text) => make("span", { class: "tag " + kind }, text || kind);

const count = n => n.toLocaleString("en");
const words = name => name.replaceAll("_", " ");
function bytes(n) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let at = 0;
  while (n >= 999.5 && at < units.length - 1) { n /= 1000; at++; }
  return (at && n < 99.95 ? n.toFixed(1) : count(Math.round(n))) + " " + units[at];
}
function share(part, whole) {
  const percent = whole ? 100 * part / whole : 0;
  if (percent > 0 && percent < 0.1) return "<0.1 %";
  return percent.toFixed(percent === 100 || percent === 0 ? 0 : 1) + " %";
}
const number = x => {
  const size = Math.abs(x);
  if (size >= 1e9) return x.toExponential(1);
  return Number(x.toPrecision(size >= 1000 ? 6 : 3)).toLocaleString("en", { maximumFractionDigits: size < 1 ? 4 : 2 });
};
const alike = similarity => (100 * similarity).toFixed(0) + " % alike";
const amount = a => unit === "bytes" ? bytes(a.bytes) : count(a.documents);
const outcomeKind = outcome => outcome === "kept" ? "kept" : ["rejected", "changed"].find(kind => outcome.startsWith(kind + ":")) || "dropped";
const total = amounts => amounts.reduce((a, b) => ({ documents: a.documents + b.documents, bytes: a.bytes + b.bytes }),
  { documents: 0, bytes: 0 });

function table(head, rows, caption) {
  const cell = (kind, value, at) => {
    const [mark] = head[at].match(/^#?~?/);
    const attributes = { class: { "#": "n", "~": "spare", "#~": "n spare" }[mark] };
    if (kind === "th" ) attributes.scope = "col";
    if (value && value.cell) return put(make(kind, attributes), value.cell, value.children);
    return make(kind, attributes, value);
  };
  const body = rows.map(row => make("tr", { class: row.total ? "total" : null },
    (row.cells || row).map((value, at) => cell("td", value, at))));
  return make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption || "table" }, make("table", {},
    caption ? make("caption", {}, caption) : null,
    make("thead", {}, make("tr", {}, head.map((name, at) => cell("th", name.replace(/^#?~?/, ""), at)))), make("tbody", {}, body)));
}
const cell = (attributes, ...children) => ({ cell: attributes, children });
const bar = (kept, dropped, whole, thin) => make("div", { class: thin ? "bar thin" : "bar", "aria-hidden": "true" },
  kept ? make("i", { "--share": 100 * kept / whole }) : null,
  dropped ? make("i", { class: "dropped", "--share": 100 * dropped / whole }) : null);

// ---------------------------------------------------------------- head

function head() {
  const { read, kept, corpus } = report;
  const files = report.files.reduce((sum, file) => sum + file.files, 0);
  const rejected = report.files.reduce((sum, file) => sum + file.rejected, 0);
  const size = report.files.reduce((sum, file) => sum + file.bytes, 0);
  const changed = report.reasons.filter(r => r.stage === "curate" && r.outcome === "changed").reduce((n, r) => n + r.entries, 0);
  const fact = (value, label) => make("div", {}, make("dt", {}, label), make("dd", {}, value));
  const worst = report.funnel.reduce((a, b) => b[1].documents > a[1].documents ? b : a, report.funnel[0] || ["", { documents: 0 }]);
  put($("head"), {}, [
    make("p", { class: "kind" }, report.curated ? "Corpus report" : "Ingest report"),
    make("h1", {}, path(report.title)),
    make("p", { class: "lead" }, !report.curated
      ? `${count(read.documents)} documents were read from ${count(files)} files. The curate stage has not run yet.` : `${count(kept.documents)} of ${count(read.documents)} documents were kept (`
      + `${share(kept.documents, read.documents)}), and ${share(kept.bytes, read.bytes)} of their text.`
      + (worst[1].documents ? ` The step ${worst[0]} dropped the most: ${count(worst[1].documents)}.` : "")),
    make("dl", { class: "facts" }, fact(count(files), `files found, ${bytes(size)}`),
      fact(count(rejected), "files rejected"), fact(bytes(read.bytes), "of text read"), !report.curated ? null : [
      fact(count(read.documents - kept.documents), "documents dropped"),
      fact(count(changed), "changes"), fact(bytes(corpus.bytes), "in the corpus")]),
  ]);
}

// ---------------------------------------------------------------- sections

function units(redraw) {
  const button = name => make("button", { type: "button", "aria-pressed": String(unit === name),
    click: () => { unit = name; redraw(name); } }, name);
  return make("div", { class: "units", role: "group", "aria-label": "count" }, button("documents"), button("bytes"));
}

function funnel() {
  const files = { documents: 0, bytes: report.files.reduce((sum, file) => sum + file.bytes, 0) };
  const whole = Math.max(report.read[unit], files[unit], 1);
  const changed = name => report.reasons.filter(r => r.outcome === "changed" && r.step === name).reduce((n, r) => n + r.entries, 0);
  const row = (name, dropped, left, bold) => ({ total: bold, cells: [name,
    cell({ class: "wide" }, bar(left[unit], dropped ? dropped[unit] : 0, whole)), changed(name) ? count(changed(name)) : "",
    dropped && dropped.documents ? amount(dropped) : "", dropped && dropped.documents ? share(dropped[unit], report.read[unit]) : "",
    amount(left), share(left[unit], report.read[unit])] });
  const rows = [unit === "bytes" ? { cells: ["in the files", cell({ class: "wide" }, bar(files.bytes, 0, whole)), "", "", "", bytes(files.bytes), ""] } : null,
    row("read", null, report.read), ...report.funnel.map(([step, dropped, left]) => row(step, dropped, left)),
    report.curated ? row("kept", null, report.kept, true) : null].filter(Boolean);
  const change = report.corpus.bytes - report.kept.bytes;
  return [units(redraw),
    make("p", {}, !report.curated ? "Bytes of the files and of the text read from them." : "Each step sees the documents that passed all earlier steps. Bytes are counted before any change, so the sums add up." + (change ? ` Repairs, redactions and mixing make the corpus ${bytes(Math.abs(change))} ${change < 0 ? "smaller" : "larger"}.` : "")),
    table(["step", "", "#~changed", "#dropped", "#~of read", "#left", "#~of read"], rows),
    make("ul", { class: "checks" }, report.checks.map(check => make("li", { class: check.holds ? null : "fails" },
      make("b", {}, check.holds ? "\u2713" : "\u2717"), check.text, check.holds ? "" : ": mismatch")))];
}

function sources() {
  const steps = report.steps.filter(step => report.flows.some(flow => flow.step === step));
  const names = [...new Set([...report.files.map(file => file.source), ...report.flows.map(flow => flow.source)])];
  const sum = (source, step) => total(report.flows.filter(flow => flow.source === source
    && (step === null || flow.step === step)).map(flow => flow.amount));
  const rows = names.map(source => ({ source, read: sum(source, null), file: report.files.find(f => f.source === source) || {} }))
    .sort((a, b) => b.read.bytes - a.read.bytes).map(({ source, read, file }) => {
      const kept = sum(source, "");
      const licences = (file.licences || []).map(([name, n]) => `${name || "not stated"}${file.licences.length > 1 ? ` (${count(n)})` : ""}`);
      const dropped = steps.map(step => {
        const part = sum(source, step)[unit], percent = read[unit] ? 100 * part / read[unit] : 0;
        return cell({ class: "n heat", "--heat": Math.min(percent, 100) * 0.6 }, part ? share(part, read[unit]) : "\u2013");
      });
      return [cell({ class: "name" }, path(source)), cell({ class: "muted" }, licences.join(", ") || "\u2013"),
        count(file.files || 0), file.rejected ? count(file.rejected) : "\u2013", read[unit] ? amount(read) : "\u2013", ...dropped,
        ...(report.curated ? [amount(kept), cell({ class: "n" }, read[unit] ? share(kept[unit], read[unit]) : "\u2013")] : [])];
    });
  return [steps.length ? make("p", {}, `Share of each source's ${unit} that each step dropped.`) : null,
    table(["source", "licence", "#files", "#rejected", "#read", ...steps.map(step => "#" + words(step)),
      ...(report.curated ? ["#kept", "#of read"] : [])], rows)];
}

function reasons() {
  const dropped = report.reasons.filter(r => r.outcome === "dropped");
  const most = Math.max(1, ...dropped.map(r => r.entries));
  const noted = report.reasons.filter(r => r.outcome === "changed");
  const open = r => report.groups.some(g => g.step === r.step && g.reason === r.reason && g.ids.length)
    ? make("a", { href: `#samples-${r.step}-${r.reason}`, click: () => show(r) }, words(r.reason)) : words(r.reason);
  const show = r => document.querySelectorAll("details.group").forEach(group => {
    if (group.dataset.of === `${r.step}-${r.reason}`) group.open = true; });
  return [
    !dropped.length ? null : table(["step", "reason", "#documents", "#~of read", "~", "~rule", "#~text"], dropped.map(r => [r.step, open(r), count(r.entries),
      share(r.entries, report.read.documents), cell({ class: "some spare" }, bar(0, r.entries, most, true)),
      cell({ class: "muted spare" }, r.rule || "\u2013"), bytes(r.bytes)]), "Why documents were dropped"),
    noted.length ? table(["stage", "step", "change", "#documents"],
      noted.map(r => [r.stage, r.step, open(r), count(r.entries)]), "Changes in documents that were kept") : null];
}

function histogram(h) {
  const W = 260, H = 112, TOP = 26, BASE = 92, n = h.kept.length, x = at => Math.min(Math.max(at, 0), n) * W / n;
  const totals = h.kept.map((kept, at) => kept + h.later[at] + h.dropped[at]), sorted = [...totals].sort((a, b) => b - a);
  // One bar far above all others (often that of zero) would flatten them: it is cut, with its share written on it.
  const cut = sorted.length > 3 && sorted[0] > 5 * sorted[1] && sorted[1] > 0, top = cut ? sorted[1] * 1.35 : sorted[0] || 1;
  const high = all => Math.min(all, top) / top * (BASE - TOP);
  const bars = totals.map((all, at) => {
    if (!all) return null;
    let y = BASE;
    const part = (kind, n) => n ? draw("rect", { class: kind, x: x(at) + 0.3, y: y -= high(all) * n / all,
      width: W / h.kept.length - 0.6, height: high(all) * n / all }) : null;
    return draw("g", {}, draw("title", {}, `${count(h.kept[at])} kept, ${count(h.dropped[at])} dropped here, ${count(h.later[at])} later`),
      part("kept", h.kept[at]), part("later", h.later[at]), part("dropped", h.dropped[at]));
  });
  const outside = h.thresholds.map(m => m.side === "at_least" ? [0, x(m.at)] : [x(m.at), W]).map(([from, to]) =>
    draw("rect", { class: "out", x: from, y: TOP - 4, width: Math.max(to - from, 0), height: BASE - TOP + 4 }));
  const label = (m, at) => {
    const off = m.at < 0 ? "\u2190 " : m.at > n ? " \u2192" : "", sign = m.side === "at_least" ? "\u2265 " : "\u2264 ";
    const left = x(m.at) > W * 0.72 || (m.side === "at_most" && x(m.at) > W * 0.3);
    return [off ? null : draw("line", { class: "limit", x1: x(m.at), x2: x(m.at), y1: TOP - 6, y2: BASE }),
      draw("text", { class: "limit", x: x(m.at), y: 9 + 10 * (at % 2), "text-anchor": left ? "end" : "start" },
        (m.at < 0 ? off : "") + sign + number(m.value) + (m.at > n ? off : ""))];
  };
  const tall = cut ? totals.indexOf(sorted[0]) : -1;
  const spike = cut ? [draw("line", { class: "cut", x1: x(tall) - 1, x2: x(tall + 1) + 1, y1: TOP + 12, y2: TOP + 8 }),
    draw("text", { x: x(tall + 1) + 3 > W - 30 ? x(tall) - 3 : x(tall + 1) + 3, y: TOP + 9,
      "text-anchor": x(tall + 1) + 3 > W - 30 ? "end" : "start" }, share(sorted[0], h.documents))] : [];
  let taken = -10;
  const fits = (at, text) => {
    const half = text.length * 3, from = Math.min(Math.max(x(at) - half, 0), W - 2 * half);
    if (from < taken + 6) return false;
    taken = from + 2 * half;
    return true;
  };
  const ticks = h.ticks.filter(([at, value]) => fits(at, number(value))).map(([at, value]) => [draw("line", { class: "axis", x1: x(at), x2: x(at), y1: BASE, y2: BASE + 3 }),
    draw("text", { x: x(at), y: BASE + 14, "text-anchor": x(at) < 12 ? "start" : x(at) > W - 12 ? "end" : "middle" }, number(value))]);
  const rules = h.thresholds.map(m => m.reason).filter((reason, at, all) => all.indexOf(reason) === at);
  const droppedBy = rules.map(reason => {
    const r = report.reasons.find(r => r.step === h.step && r.reason === reason && r.outcome === "dropped");
    return `${words(reason)}: ${r ? count(r.entries) : "none"}`;
  });
  const summary = `median ${number(h.median)}, 1st to 99th percentile ${number(h.low)} to ${number(h.high)}`;
  return make("figure", {}, make("h4", {}, words(h.metric), h.log ? make("span", { class: "muted" }, " (log)") : ""),
    draw("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${h.metric} of ${count(h.documents)} documents: ${summary}` },
      outside, bars, spike, draw("line", { class: "axis", x1: 0, x2: W, y1: BASE, y2: BASE }), ticks, h.thresholds.map(label)),
    make("figcaption", {}, summary, droppedBy.length ? make("span", { class: "about" }, "dropped for ", droppedBy.join(", ")) : ""));
}

function metrics() {
  const steps = [...new Set(report.histograms.map(h => h.step))];
  const legend = (kind, text) => make("span", {}, make("i", { class: kind }), text);
  return [make("p", { class: "legend" }, legend("", "kept"), legend("later", "passed, dropped by a later step"),
    legend("dropped", "dropped by this step"), legend("out", "outside the rule")),
    ...steps.map(step => [make("h3", {}, step), make("div", { class: "grid" },
      report.histograms.filter(h => h.step === step).map(histogram))])];
}
