// Samples, clusters, one document's story, search: the second half of the page's script.

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
  if (group.column && d.measures.has(group.column)) return `${words(group.column.slice(group.column.lastIndexOf(".") + 1))} ${number(d.measures.get(group.column))}`;
  if (!event) return "";
  const limit = event.threshold === null ? "" : ` (limit ${number(event.threshold)})`;
  const value = event.value === null || (event.fate === "changed" && event.detail) ? "" : number(event.value) + limit;
  return [value, event.detail].filter(Boolean).join(" \u00b7 ");
}

function card(id, group) {
  const d = embedded.get(id);
  return make("article", { class: "card" }, make("header", {}, opener(id, path(d.path)),
    make("span", { class: "about" }, make("bdi", {}, about(d))), make("span", { class: "about" }, make("b", {}, why(d, group)))),
    d.text || d.changes.length ? body(d) : make("p", { class: "note" }, "Nothing of it could be read."));
}

function groupOf(group, at) {
  const here = group.ids.filter(id => embedded.has(id));
  if (!here.length) return null;
  const title = { kept: "a random choice", passed: "went on to the next step", near: `${words(group.reason)}: only just passed` }[group.kind] || words(group.reason);
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
  const steps = ["", ...new Set(story.groups.map(g => g.step).filter(step => step && !story.steps.includes(step))), ...story.steps];
  const shown = story.groups.filter(g => g.kind !== "aside");
  return [make("p", {}, "Drawn by a hash of the id: the same documents every time. Changed documents show what was taken out and put in."),
    ...steps.map(step => {
      const found = shown.map((g, at) => g.step === step ? groupOf(g, at) : null).filter(Boolean);
      const left = (story.funnel.find(([name]) => name === step) || [])[2];
      return found.length ? [make("h3", {}, step || (story.curated ? "Kept to the end" : "As read"), left ? make("small", {}, `${count(left.documents)} went on`) : ""), found] : null;
    })];
}

function duplicates() {
  const d = story.duplicates, sum = d.kinds.reduce((n, [, k]) => n + k, 0);
  const clusters = d.shown.map(cluster => make("details", { class: "group cluster", open: false }, make("summary", {},
    tag("", cluster.why), path((embedded.get(cluster.kept) || {}).path || cluster.kept),
    make("span", { class: "n" }, `${count(cluster.dropped)} dropped, at least ${alike(Math.min(...cluster.twins.map(t => t.similarity)))}`)),
    cluster.twins.map(twin => pair(cluster.kept, twin))));
  if (clusters.length) clusters[0].open = true;
  return [make("p", {}, `${count(sum)} documents repeat ${count(d.clusters)} others: `
    + d.kinds.map(([kind, n]) => `${count(n)} ${kind}`).join(", ") + "."),
    make("div", { class: "grid" }, d.similarity ? histogram(d.similarity) : null,
      make("div", {}, table(["duplicates of one document", "#clusters"], d.sizes.filter(([, n]) => n).map(([size, n]) => [size, count(n)])))),
    make("h3", {}, "Side by side", make("small", {}, "as they were read; what differs is marked")), clusters];
}

function pair(kept, twin) {
  const [a, b] = [embedded.get(kept), embedded.get(twin.id)];
  const side = (d, id, kind, label, op) => make("div", {}, make("header", {}, tag(kind, label), " ", opener(id, path(d ? d.path : id))),
    textBox(label, twin.changes.length ? pieces(twin.changes, op) : d ? d.text : "not in this page", d ? more(d) : ""));
  return make("div", { class: "pair" }, side(a, kept, "kept", "kept", "-"),
    side(b, twin.id, "dropped", twin.kind === "exact" ? "exact" : alike(twin.similarity), "+"));
}

function languages() {
  const whole = story.read.bytes || 1, most = 40;
  const rows = story.languages.slice(0, most).map(([language, read, kept]) => [language || "not identified",
    cell({ class: "wide" }, bar(kept.bytes, read.bytes - kept.bytes, whole, true)), count(read.documents), bytes(read.bytes),
    share(read.bytes, whole), count(kept.documents), bytes(kept.bytes), share(kept.bytes, read.bytes)]);
  return [table(["language", "", "#documents", "#text", "#of all", "#kept", "#text kept", "#of read"], rows),
    story.languages.length > most ? make("p", { class: "note" }, `and ${count(story.languages.length - most)} more`) : null];
}

function privacy() {
  const most = Math.max(1, ...story.redactions.map(([, , n]) => n));
  return [table(["kind", "", "#redacted", "#in documents"], story.redactions.map(([kind, documents, n]) =>
      [words(kind), cell({ class: "wide" }, bar(n, 0, most, true)), count(n), count(documents)])),
    make("p", { class: "note" }, "The samples in this page quote texts as they were read, including what was redacted later: "
      + "give the page the same protection as the raw texts.")];
}

function contamination() {
  const { tasks, hits } = story.contamination;
  return [table(["task", "#meetings", "#items met", "#documents"], tasks.map(([task, ...n]) => [task, ...n.map(count)])),
    table(["task", "item", "document", "#words shared", "text"], hits.map(h => [h.task, path(h.item), opener(h.id, h.id),
      count(h.overlap), make("bdi", {}, h.text)]), `${count(hits.length)} of them`)];
}

function aside() {
  const noted = story.reasons.filter(r => r.fate === "aside");
  return [table(["reason", "#files or records"], noted.map(r => [words(r.reason), count(r.entries)])),
    story.groups.filter(g => g.kind === "aside").map((g, at) => groupOf(g, "aside" + at))];
}

function openDocument(id) {
  const row = story.index.find(row => row[0] === id);
  const d = embedded.get(id) || (row && { id, path: row[1], source: row[2], language: row[3], bytes: row[4], fate: row[5] });
  const dialog = $("document");
  dialog.replaceChildren();
  put(dialog, {}, [make("button", { type: "button", class: "close", click: () => dialog.close() }, "Close"),
    make("h2", { id: "document-title" }, path(d ? d.path : id)), d ? whole(d) : "",
    d && d.events ? "" : make("p", { class: "note" }, "This page knows its path, not its text. The whole story: ",
      make("code", {}, "groundup inspect --document " + id))]);
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  history.replaceState(null, "", "#document=" + encodeURIComponent(id));
}

function whole(d) {
  const first = make("p", {}, tag(fateKind(d.fate), d.fate), " ", make("span", { class: "muted" }, make("bdi", {}, about(d))),
    make("span", { class: "about mono" }, d.id));
  if (!d.events) return [first];
  const gone = d.fate === "kept" ? story.steps.length : story.steps.indexOf(d.fate.split(": ")[0]);
  const steps = ["aside", "changed"].includes(fateKind(d.fate)) ? [] : story.steps;
  const way = [step("ingest", d, d.events.filter(e => e.stage === "ingest"), true),
    ...steps.map((name, at) => step(name, d, d.events.filter(e => e.stage === "curate" && e.step === name), at <= gone))];
  return [first, make("h3", {}, "Its way"), make("ol", { class: "way" }, way),
    d.twin ? make("p", {}, `A duplicate (${d.twin[2]}, ${alike(d.twin[1])}) of `, opener(d.twin[0], d.twin[0])) : null,
    d.hits.map(h => make("p", {}, `Shares ${count(h.overlap)} words with ${h.task}, item `, path(h.item), ": ", make("bdi", {}, h.text))),
    d.changes.length ? [make("h3", {}, "What changed"), textBox("changes in the text", pieces(d.changes))] : null,
    d.text ? [make("h3", {}, "As it was read"), textBox("text", d.text, more(d))] : null];
}

function step(name, d, events, reached) {
  const kinds = events.map(e => e.fate), kind = ["dropped", "aside", "changed"].find(k => kinds.includes(k));
  const rules = events.filter(e => e.fate === "dropped").map(e => e.reason);
  const values = [...d.measures].filter(([column]) => column.startsWith(name + ".")).map(([column, value]) => {
    const measure = column.slice(name.length + 1);
    const h = story.histograms.find(h => h.step === name && h.measure === measure);
    const broken = h && h.marks.some(m => rules.includes(m.reason));
    const limits = h ? h.marks.map(m => (m.side === "at_least" ? "\u2265 " : "\u2264 ") + number(m.value)).join(", ") : "";
    return make("span", { class: broken ? "broken" : null }, words(measure) + " ", make("b", {}, number(value)), limits ? ` (${limits})` : "");
  });
  return make("li", { class: reached ? kind : "never" }, name, reached ? "" : ": never came here", events.map(e => [" ", tag(e.fate, `${e.fate}: ${words(e.reason)}`),
    e.value === null ? "" : ` ${number(e.value)}${e.threshold === null ? "" : ` (limit ${number(e.threshold)})`}`, e.detail ? make("bdi", {}, " " + e.detail) : ""]),
    values.length ? make("div", { class: "measures" }, values) : "");
}

// ---------------------------------------------------------------- search

const everything = story.drawn >= story.read.documents;
const known = new Map(story.index.map(row => [row[0], { id: row[0], path: row[1], source: row[2], language: row[3], bytes: row[4], fate: row[5] }]));
for (const d of embedded.values()) known.set(d.id, d);
const haystack = [...known.values()].map(d => [d, [d.id, d.path, d.source, d.language, d.fate, d.fate.replaceAll("_", " "), d.text || ""].join(" ").toLowerCase()]);

function search() {
  const wanted = $("query").value.toLowerCase().split(/\s+/).filter(Boolean), most = 50;
  const found = wanted.length ? haystack.filter(([, text]) => wanted.every(word => text.includes(word))) : [];
  $("results").replaceChildren(...found.slice(0, most).map(([d]) => {
    const at = (d.text || "").toLowerCase().indexOf(wanted[0]);
    return make("li", {}, make("button", { type: "button", click: () => openDocument(d.id) }, path(d.path), tag(fateKind(d.fate), d.fate),
      make("small", {}, make("bdi", {}, at < 0 ? about(d) : d.text.slice(Math.max(at - 50, 0), at + 150)))));
  }));
  $("found").textContent = !wanted.length ? "" : `${count(found.length)} of the ${count(known.size)} documents this page knows`
    + (found.length > most ? `; the first ${most}` : "")
    + (everything ? "" : `. Texts of ${count(embedded.size)} are searched here; all ${count(story.read.documents)}: groundup inspect --search WORDS`);
}

// ---------------------------------------------------------------- the page

const sections = [["Funnel", "From read to kept", funnel, true], ["Sources", "By source", sources, true], ["Reasons", "Reasons", reasons, true],
  ["Measures", "What was measured", measures, story.histograms.length], ["Samples", "Samples", samples, story.groups.length],
  ["Duplicates", "Duplicates", duplicates, story.duplicates.clusters], ["Languages", "Languages", languages, story.languages.length],
  ["Privacy", "Privacy: what was redacted", privacy, story.redactions.length],
  ["Evaluation", "Met with evaluation items", contamination, story.contamination.tasks.length],
  ["Aside", "Set aside unread", aside, story.reasons.some(r => r.fate === "aside")]].filter(section => section[3]);

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
    ? `All ${count(story.read.documents)} documents are in this page, each with the beginning of its text and its whole story.`
    : `${count(embedded.size)} documents are in this page with the beginning of their text and their whole story: ${count(story.drawn)} drawn at `
      + `random (by a hash of their id, the same in every page) from all ${count(story.read.documents)}, and the samples above. `
      + `The search also knows ${count(story.index.length)} by id, path and fate.`,
  story.unshown ? ` ${count(story.unshown)} more would not fit.` : "", " Any document of the corpus: ",
  make("code", {}, "groundup inspect --search WORDS"), ", ", make("code", {}, "groundup inspect --document ID"),
  ". Written by groundup; it loads nothing from elsewhere.")]);
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
