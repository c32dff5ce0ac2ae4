// Samples, clusters, document history, search: the second half of the page's script.

// ---------------------------------------------------------------- documents

function pieces(diff, sides) {
  const tags = { "-": "del", "+": "ins" };
  return diff.filter(([op]) => !sides || op === "=" || op === "~" || op === sides).map(([op, text]) =>
    op === "=" ? text : op === "~" ? make("span", { class: "left" }, ` [${text}] `) : make(tags[op], {}, text));
}
const textBox = (label, ...children) => make("div", { class: "text", dir: "auto", tabindex: 0, role: "region", "aria-label": label }, children);
const more = d => d.more ? make("span", { class: "left" }, ` [${count(d.more)} more characters]`) : "";
const body = d => d.changes.length ? textBox("changes in the text", pieces(d.changes)) : textBox("text", d.text, more(d));
const opener = (id, ...label) => make("button", { type: "button", class: "link", click: () => openDocument(id) }, label);
const about = d => [d.source, d.language, d.licence, d.bytes ? bytes(d.bytes) : ""].filter(Boolean).join(" \u00b7 ");

function why(d, group) {
  const event = d.events.find(e => e.step === group.step && e.reason === group.reason);
  if (group.column && d.metrics.has(group.column)) return `${words(group.column.slice(group.column.lastIndexOf(".") + 1))} ${number(d.metrics.get(group.column))}`;
  if (!event) return "";
  const limit = event.threshold === null ? "" : ` (limit ${number(event.threshold)})`;
  const value = event.value === null || (event.outcome === "changed" && event.detail) ? "" : number(event.value) + limit;
  return [value, event.detail].filter(Boolean).join(" \u00b7 ");
}

function card(id, group) {
  const d = embedded.get(id);
  return make("article", { class: "card" }, make("header", {}, opener(id, path(d.path)),
    make("span", { class: "about" }, make("bdi", {}, about(d))), make("span", { class: "about" }, make("b", {}, why(d, group)))),
    d.text || d.changes.length ? body(d) : make("p", { class: "note" }, "No text could be read."));
}

function groupOf(group, at) {
  const here = group.ids.filter(id => embedded.has(id));
  if (!here.length) return null;
  const title = { kept: "random sample", passed: "passed this step", near: `${words(group.reason)}: passed near the limit` }[group.kind] || words(group.reason);
  const cards = make("div", { class: "cards" });
  const of = ["near", "passed"].includes(group.kind) ? `${group.kind}-${at}` : `${group.step}-${group.reason}`;
  const fill = () => { if (!cards.childElementCount) cards.append(...here.map(id => card(id, group))); };
  const details = make("details", { class: "group", id: "samples-" + of, toggle: fill },
    make("summary", {}, tag(group.kind), title, make("span", { class: "muted" }, group.rule),
      make("span", { class: "n" }, `${count(here.length)} of ${count(group.total)}`)), cards);
  details.dataset.of = of;
  return details;
}

function samples() {
  const steps = ["", ...new Set(report.groups.map(g => g.step).filter(step => step && !report.steps.includes(step))), ...report.steps];
  const shown = report.groups.filter(g => g.kind !== "rejected");
  return [make("p", {}, "Sampled by a hash of the id, so the sample is reproducible. Changed documents show removed and inserted text."),
    ...steps.map(step => {
      const found = shown.map((g, at) => g.step === step ? groupOf(g, at) : null).filter(Boolean);
      const left = (report.funnel.find(([name]) => name === step) || [])[2];
      return found.length ? [make("h3", {}, step || (report.curated ? "Kept" : "As read"), left ? make("small", {}, `${count(left.documents)} passed`) : ""), found] : null;
    })];
}

function duplicates() {
  const d = report.duplicates, sum = d.kinds.reduce((n, [, k]) => n + k, 0);
  const clusters = d.shown.map(cluster => make("details", { class: "group cluster", open: false }, make("summary", {},
    tag("", cluster.why), path((embedded.get(cluster.kept) || {}).path || cluster.kept),
    make("span", { class: "n" }, `${count(cluster.dropped)} dropped, at least ${alike(Math.min(...cluster.members.map(t => t.similarity)))}`)),
    cluster.members.map(member => pair(cluster.kept, member))));
  if (clusters.length) clusters[0].open = true;
  return [make("p", {}, `${count(sum)} documents repeat ${count(d.clusters)} others: `
    + d.kinds.map(([kind, n]) => `${count(n)} ${kind}`).join(", ") + "."),
    make("div", { class: "grid" }, d.similarity ? histogram(d.similarity) : null,
      make("div", {}, table(["duplicates of one document", "#clusters"], d.sizes.filter(([, n]) => n).map(([size, n]) => [size, count(n)])))),
    make("h3", {}, "Side by side", make("small", {}, "as read; differences are marked")), clusters];
}

function pair(kept, member) {
  const [a, b] = [embedded.get(kept), embedded.get(member.id)];
  const side = (d, id, kind, label, op) => make("div", {}, make("header", {}, tag(kind, label), " ", opener(id, path(d ? d.path : id))),
    textBox(label, member.changes.length ? pieces(member.changes, op) : d ? d.text : "not in this page", d ? more(d) : ""));
  return make("div", { class: "pair" }, side(a, kept, "kept", "kept", "-"),
    side(b, member.id, "dropped", member.kind === "exact" ? "exact" : alike(member.similarity), "+"));
}

function languages() {
  const whole = report.read.bytes || 1, most = 40;
  const rows = report.languages.slice(0, most).map(([language, read, kept]) => [language || "not identified",
    cell({ class: "wide" }, bar(kept.bytes, read.bytes - kept.bytes, whole, true)), count(read.documents), bytes(read.bytes),
    share(read.bytes, whole), count(kept.documents), bytes(kept.bytes), share(kept.bytes, read.bytes)]);
  return [table(["language", "", "#documents", "#text", "#of all", "#kept", "#text kept", "#of read"], rows),
    report.languages.length > most ? make("p", { class: "note" }, `and ${count(report.languages.length - most)} more`) : null];
}

function privacy() {
  const most = Math.max(1, ...report.redactions.map(([, , n]) => n));
  return [table(["kind", "", "#redacted", "#in documents"], report.redactions.map(([kind, documents, n]) =>
      [words(kind), cell({ class: "wide" }, bar(n, 0, most, true)), count(n), count(documents)])),
    make("p", { class: "note" }, "Samples quote the texts as read, before redaction: protect this page like the raw texts.")];
}

function contamination() {
  const { tasks, hits } = report.contamination;
  return [table(["task", "#matches", "#items", "#documents"], tasks.map(([task, ...n]) => [task, ...n.map(count)])),
    table(["task", "item", "document", "#shared words", "text"], hits.map(h => [h.task, path(h.item), opener(h.id, h.id),
      count(h.overlap), make("bdi", {}, h.text)]), `${count(hits.length)} matches`)];
}

function rejected() {
  const noted = report.reasons.filter(r => r.outcome === "rejected");
  return [table(["reason", "#files or records"], noted.map(r => [words(r.reason), count(r.entries)])),
    report.groups.filter(g => g.kind === "rejected").map((g, at) => groupOf(g, "rejected" + at))];
}

function openDocument(id) {
  const row = report.index.find(row => row[0] === id);
  const d = embedded.get(id) || (row && { id, path: row[1], source: row[2], language: row[3], bytes: row[4], outcome: row[5] });
  const dialog = $("document");
  dialog.replaceChildren();
  put(dialog, {}, [make("button", { type: "button", class: "close", click: () => dialog.close() }, "Close"),
    make("h2", { id: "document-title" }, path(d ? d.path : id)), d ? whole(d) : "",
    d && d.events ? "" : make("p", { class: "note" }, "This page has its path, not its text. Full history: ",
      make("code", {}, "groundup inspect --document " + id))]);
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  history.replaceState(null, "", "#document=" + encodeURIComponent(id));
}

function whole(d) {
  const first = make("p", {}, tag(outcomeKind(d.outcome), d.outcome), " ", make("span", { class: "muted" }, make("bdi", {}, about(d))),
    make("span", { class: "about mono" }, d.id));
  if (!d.events) return [first];
  const last = d.outcome === "kept" ? report.steps.length : report.steps.indexOf(d.outcome.split(": ")[0]);
  const steps = ["rejected", "changed"].includes(outcomeKind(d.outcome)) ? [] : report.steps;
  const history = [step("ingest", d, d.events.filter(e => e.stage === "ingest"), true),
    ...steps.map((name, at) => step(name, d, d.events.filter(e => e.stage === "curate" && e.step === name), at <= last))];
  return [first, make("h3", {}, "History"), make("ol", { class: "history" }, history),
    d.duplicate_of ? make("p", {}, `Duplicate (${d.duplicate_of[2]}, ${alike(d.duplicate_of[1])}) of `, opener(d.duplicate_of[0], d.duplicate_of[0])) : null,
    d.hits.map(h => make("p", {}, `Shares ${count(h.overlap)} words with ${h.task}, item `, path(h.item), ": ", make("bdi", {}, h.text))),
    d.changes.length ? [make("h3", {}, "Changes"), textBox("changes in the text", pieces(d.changes))] : null,
    d.text ? [make("h3", {}, "Text as read"), textBox("text", d.text, more(d))] : null];
}

function step(name, d, events, reached) {
  const kinds = events.map(e => e.outcome), kind = ["dropped", "rejected", "changed"].find(k => kinds.includes(k));
  const rules = events.filter(e => e.outcome === "dropped").map(e => e.reason);
  const values = [...d.metrics].filter(([column]) => column.startsWith(name + ".")).map(([column, value]) => {
    const metric = column.slice(name.length + 1);
    const h = report.histograms.find(h => h.step === name && h.metric === metric);
    const broken = h && h.thresholds.some(m => rules.includes(m.reason));
    const limits = h ? h.thresholds.map(m => (m.side === "at_least" ? "\u2265 " : "\u2264 ") + number(m.value)).join(", ") : "";
    return make("span", { class: broken ? "broken" : null }, words(metric) + " ", make("b", {}, number(value)), limits ? ` (${limits})` : "");
  });
  return make("li", { class: reached ? kind : "never" }, name, reached ? "" : ": not reached", events.map(e => [" ", tag(e.outcome, `${e.outcome}: ${words(e.reason)}`),
    e.value === null ? "" : ` ${number(e.value)}${e.threshold === null ? "" : ` (limit ${number(e.threshold)})`}`, e.detail ? make("bdi", {}, " " + e.detail) : ""]),
    values.length ? make("div", { class: "metrics" }, values) : "");
}

// ---------------------------------------------------------------- search

const everything = report.drawn >= report.read.documents;
const known = new Map(report.index.map(row => [row[0], { id: row[0], path: row[1], source: row[2], language: row[3], bytes: row[4], outcome: row[5] }]));
for (const d of embedded.values()) known.set(d.id, d);
const haystack = [...known.values()].map(d => [d, [d.id, d.path, d.source, d.language, d.outcome, d.outcome.replaceAll("_", " "), d.text || ""].join(" ").toLowerCase()]);

function search() {
  const wanted = $("query").value.toLowerCase().split(/\s+/).filter(Boolean), most = 50;
  const found = wanted.length ? haystack.filter(([, text]) => wanted.every(word => text.includes(word))) : [];
  $("results").replaceChildren(...found.slice(0, most).map(([d]) => {
    const at = (d.text || "").toLowerCase().indexOf(wanted[0]);
    return make("li", {}, make("button", { type: "button", click: () => openDocument(d.id) }, path(d.path), tag(outcomeKind(d.outcome), d.outcome),
      make("small", {}, make("bdi", {}, at < 0 ? about(d) : d.text.slice(Math.max(at - 50, 0), at + 150)))));
  }));
  $("found").textContent = !wanted.length ? "" : `${count(found.length)} of the ${count(known.size)} documents in this page`
    + (found.length > most ? `; the first ${most}` : "")
    + (everything ? "" : `. ${count(embedded.size)} texts are searched here; to search all ${count(report.read.documents)}: groundup inspect --search WORDS`);
}

// ---------------------------------------------------------------- the page

const sections = [["Funnel", "From read to kept", funnel, true], ["Sources", "By source", sources, true], ["Reasons", "Reasons", reasons, true],
  ["Metrics", "Metrics of documents", metrics, report.histograms.length], ["Samples", "Samples", samples, report.groups.length],
  ["Duplicates", "Duplicates", duplicates, report.duplicates.clusters], ["Languages", "Languages", languages, report.languages.length],
  ["Privacy", "Privacy: redactions", privacy, report.redactions.length],
  ["Evaluation", "Overlap with evaluation items", contamination, report.contamination.tasks.length],
  ["Rejected", "Rejected at ingest", rejected, report.reasons.some(r => r.outcome === "rejected")]].filter(section => section[3]);

function redraw(pressed) {
  for (const name of ["Funnel", "Sources"]) {
    const [, title, content] = sections.find(section => section[0] === name);
    $(name).replaceChildren(make("h2", {}, title), ...[content()].flat(9).filter(Boolean));
  }
  [...document.querySelectorAll(".units button")].find(button => button.textContent === pressed).focus();
}

head();
put($("contents"), {}, [make("ol", {}, sections.map(([name]) => make("li", {}, make("a", { href: "#" + name }, name))))]);
put($("main"), {}, sections.map(([name, title, content]) => make("section", { id: name }, make("h2", {}, title), content())));

put($("foot"), {}, [make("p", {}, everything
    ? `This page has all ${count(report.read.documents)} documents, each with the beginning of its text and its history.`
    : `This page has ${count(embedded.size)} documents with the beginning of their text and their history: the samples above and `
      + `a random sample (by a hash of the id) of ${count(report.drawn)} from all ${count(report.read.documents)}. `
      + `The search also finds ${count(report.index.length)} by id, path and outcome.`,
  report.unshown ? ` ${count(report.unshown)} more exceed the page's size limit.` : "", " For any document of the corpus: ",
  make("code", {}, "groundup inspect --search WORDS"), ", ", make("code", {}, "groundup inspect --document ID"),
  ". Written by groundup; the page makes no network requests.")]);
$("query").placeholder = everything ? "words in a text, path, id, or reason" : `words in one of ${count(embedded.size)} texts, path, id, or reason`;

$("query").addEventListener("input", search);
$("document").addEventListener("close", () => history.replaceState(null, "", location.pathname + location.search));
$("document").addEventListener("click", event => { if (event.target === $("document")) $("document").close(); });
document.addEventListener("keydown", event => {
  if (event.key === "/" && !$("document").open && document.activeElement !== $("query")) { event.preventDefault(); $("query").focus(); }
});
function follow() {
  if (location.hash.startsWith("#document=")) openDocument(decodeURIComponent(location.hash.slice(10)));
}
addEventListener("hashchange", follow);
follow();
const here = new IntersectionObserver(entries => entries.filter(entry => entry.isIntersecting).forEach(entry => {
  document.querySelectorAll("nav a").forEach(link => link.toggleAttribute("aria-current", link.hash === "#" + entry.target.id));
}), { rootMargin: "-15% 0px -75% 0px" });
document.querySelectorAll("main > section").forEach(section => here.observe(section));
