"use strict";
// What the page says in words and tables. `page` is shared with charts.js and live.js.
const page = { contents: JSON.parse(document.getElementById("contents").textContent) };

(() => {
  const MOST_PROBLEMS = 20;
  const node = (id) => document.getElementById(id);
  const number = (value) => (value === null || value === undefined ? "–" : value.toLocaleString("en-US"));
  const moment = (ms, digits = 19) =>
    ms === null || ms === undefined ? "–" : new Date(ms).toISOString().replace("T", " ").slice(0, digits);
  const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

  const size = (bytes) => {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let at = 0;
    for (; bytes >= 1024 && at < units.length - 1; at += 1) bytes /= 1024;
    return `${bytes < 100 && bytes % 1 ? bytes.toFixed(1) : Math.round(bytes)} ${units[at]}`;
  };

  const lasting = (ms) => {
    const seconds = Math.max(0, Math.round(ms / 1000));
    for (const [name, length] of [["days", 86400], ["hours", 3600], ["minutes", 60]]) {
      if (seconds >= 2 * length) return `${number(Math.floor(seconds / length))} ${name}`;
    }
    return `${seconds} s`;
  };
  const ago = (ms) => (ms === null ? "–" : `${lasting(page.contents.made_at - ms)} ago`);

  const element = (name, text, attributes = {}) => {
    const made = document.createElement(name);
    if (text !== null) made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) if (value !== "") made.setAttribute(key, value);
    return made;
  };

  // Columns are [title, whether its cells are numbers]; the first cell of a row is its heading.
  const table = (id, caption, columns, rows) => {
    const made = element("table", null);
    made.append(element("caption", caption));
    const kind = (at) => ({ class: columns[at][1] ? "number" : "" });
    const head = element("tr", null);
    columns.forEach(([title], at) => head.append(element("th", title, { scope: "col", ...kind(at) })));
    const top = element("thead", null);
    top.append(head);
    const body = element("tbody", null);
    for (const row of rows) {
      const line = element("tr", null);
      row.forEach((cell, at) =>
        line.append(at ? element("td", String(cell), kind(at)) : element("th", String(cell), { scope: "row" })));
      body.append(line);
    }
    made.append(top, body);
    const box = node(id);
    box.setAttribute("tabindex", "0");
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", caption);
    box.replaceChildren(made);
  };

  const tell = (id, text) => { node(id).textContent = text; };
  Object.assign(page, { node, number, moment, plural, size, element, table, tell });

  const newest = (times) => {
    const known = times.filter((time) => time !== null);
    return known.length ? Math.max(...known) : null;
  };

  const verdict = () => {
    const found = page.contents.verdict;
    const kind = found === null ? " unknown" : found.ok ? "" : " bad";
    const card = element("div", null, { class: `verdict${kind}` });
    if (found === null) {
      card.append(element("p", "Not audited: k2beam audit tells whether every offset is in exactly one place."));
    } else {
      const sum = (name) => number(found.offsets[name]);
      const line = element("p", null);
      line.append(element("strong", found.ok ? "PASSED" : "FAILED"));
      line.append(` ${sum("expected")} offsets expected: ${sum("received")} are events, ${sum("dead")} dead letters, ` +
        `${sum("missing")} missing, ${sum("duplicate")} there twice. Audited ${moment(found.at)}.`);
      card.append(line);
      found.problems.slice(0, MOST_PROBLEMS).forEach((problem) => card.append(element("p", problem)));
      const more = found.problems.length - MOST_PROBLEMS;
      if (more > 0) card.append(element("p", `… and ${plural(more, "problem")} more: k2beam audit has them all.`));
      found.notes.forEach((note) => card.append(element("p", note, { class: "quiet" })));
      const copies = found.copies;
      if (copies) {
        card.append(element("p", `${plural(copies, "row has", "rows have")} a number that another row of the symbol ` +
          "has; queries take each once.", { class: "quiet" }));
      }
      const columns = ["expected", "received", "dead", "missing", "duplicate"];
      const shown = found.sources.length;
      const part = shown < found.sources_in_all
        ? `: ${number(shown)} of ${number(found.sources_in_all)}, the wrong ones first` : "";
      const caption = `Offsets of each partition of each source${part}`;
      table("sources", caption, [["source"], ["partition", 1], ["end"],
        ...columns.map((name) => [name, 1])], found.sources.map((one) =>
        [one.source, one.partition, one.end, ...columns.map((name) => number(one[name]))]));
    }
    node("sources").parentElement.hidden = found === null;
    node("verdict").replaceChildren(card);
  };

  const facts = () => {
    const { contents } = page;
    const events = contents.tables.filter((one) => one.events);
    const letters = contents.dead_letters.reduce((sum, one) => sum + one.letters, 0);
    const lag = contents.lag && contents.lag.partitions.reduce((sum, one) => sum + one.lag, 0);
    const shown = [
      ["Rows of events", number(events.reduce((sum, one) => sum + one.rows, 0))],
      ["Newest event", ago(newest(events.map((one) => one.last_event)))],
      ["Last commit", ago(newest(contents.snapshots.map((one) => one.at)))],
      ...(contents.lag ? [["Lag", plural(lag, "message")]] : []),
      ["Open gaps", number(contents.gaps.open)],
      ["Numbers missing", number(contents.gaps.missing)],
      ["Dead letters", number(letters)],
      ["Symbols", number(contents.symbols)],
    ];
    node("facts").replaceChildren(...shown.map(([name, value]) => {
      const fact = element("div", null);
      fact.append(element("dt", name), element("dd", value));
      return fact;
    }));
  };

  const lag = () => {
    const found = page.contents.lag;
    node("lag-title").parentElement.hidden = found === null;
    if (found === null) return;
    tell("lag-told", found.problems.join("; "));
    table("lag-table", "How far the tables are behind each partition of Kafka", [["topic"], ["partition", 1],
      ["messages behind", 1], ["time behind", 1], ["offsets covered", 1], ["offsets lost", 1]],
    found.partitions.map((one) => [one.topic, one.partition, number(one.lag),
      one.behind === null ? "not known" : lasting(one.behind * 1000), number(one.covered), number(one.lost)]));
  };

  const tables = () => {
    const commits = (name) => page.contents.snapshots.filter((one) => one.table === name);
    table("tables", "Each table as it is now", [["table"], ["rows", 1], ["files", 1], ["size", 1], ["last commit"],
      ["first"], ["newest"], ["newest, ago"]], page.contents.tables.map((one) => [one.table, number(one.rows),
      number(one.files), size(one.bytes), moment(newest(commits(one.table).map((commit) => commit.at))),
      moment(one.first_event), moment(one.last_event), ago(one.last_event)]));
  };

  page.drawTables = () => {
    tell("made", `as of ${moment(page.contents.made_at)}`);
    verdict();
    facts();
    lag();
    tables();
  };
})();
