"use strict";
// The charts, each with a table of the same values and a sentence for who can't see it.
(() => {
  const { node, number, moment, plural, size, element, table, tell } = page;
  const MOST_LINES = 20;
  const LEAST_BAR_PIXELS = 2;
  const TIMES = { year: "{yyyy}", month: "{MMM} {yyyy}", day: "{d} {MMM}", hour: "{HH}:{mm}", minute: "{HH}:{mm}",
    second: "{HH}:{mm}:{ss}", millisecond: "{HH}:{mm}:{ss}" };
  const instances = new Map();
  const zooms = new Map();

  const colours = () => {
    const style = getComputedStyle(document.documentElement);
    const names = ["ground", "raised", "line", "ink", "quiet", "good", "bad", "accent", "second"];
    return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  };

  const chart = (id, told, option) => {
    const box = node(id);
    box.setAttribute("role", "img");
    box.setAttribute("aria-label", told);
    if (!instances.has(id)) instances.set(id, echarts.init(box, null, { renderer: "canvas", useUTC: true }));
    const { ground, raised, ink, quiet, line, accent, second, good, bad } = colours();
    const axis = (given) => ({
      ...given, axisLine: { lineStyle: { color: line } }, axisTick: { lineStyle: { color: line } },
      axisLabel: { color: quiet, hideOverlap: true, ...(given.type === "time" && { formatter: TIMES }),
        ...given.axisLabel },
      splitLine: { lineStyle: { color: line }, ...given.splitLine }, nameTextStyle: { color: quiet } });
    const all = (given) => (Array.isArray(given) ? given : [given]).map(axis);
    const zoom = (option.dataZoom || []).map((given) => ({
      ...given, ...zooms.get(id), borderColor: line, fillerColor: `${accent}33`, textStyle: { color: quiet },
      brushSelect: false, handleStyle: { color: ground, borderColor: accent },
      moveHandleStyle: { color: quiet }, dataBackground: { lineStyle: { color: line }, areaStyle: { color: line } } }));
    const instance = instances.get(id);
    instance.setOption({
      animation: false, backgroundColor: "transparent", textStyle: { color: ink, fontFamily: "system-ui, sans-serif" },
      color: [accent, second, good, bad, quiet, ink], ...option,
      legend: { type: "scroll", top: 0, left: 88, right: 8, textStyle: { color: ink }, inactiveColor: quiet,
        pageTextStyle: { color: ink }, pageIconColor: ink, pageIconInactiveColor: line, ...option.legend },
      tooltip: { renderMode: "richText", confine: true, backgroundColor: raised, borderColor: line,
        textStyle: { color: ink }, axisPointer: { label: { backgroundColor: quiet, color: ground } },
        ...option.tooltip },
      xAxis: all(option.xAxis), yAxis: all(option.yAxis), dataZoom: zoom }, true);
    instance.off("datazoom");
    instance.on("datazoom", () => {
      const [{ start, end }] = instance.getOption().dataZoom;
      zooms.set(id, { start, end });
    });
  };

  // Shows a chart and its table, or hides both; whether there is something to show.
  const has = (id, there) => {
    node(id).hidden = node(`${id}-table`).parentElement.hidden = !there;
    return Boolean(there);
  };

  const isChosen = () => Number(node("symbol").value || 0);

  // In percent: where bars would be too thin to see, those at the end are shown first.
  const firstShown = (bars) => {
    const pixels = Math.max(200, node("candles").clientWidth - 88);
    return pixels / bars < LEAST_BAR_PIXELS ? 100 * (1 - pixels / (2 * LEAST_BAR_PIXELS) / bars) : 0;
  };

  const candles = () => {
    const { every, of } = page.contents.candles;
    const found = of[isChosen()];
    node("symbol").disabled = !found;
    if (!has("candles", found)) return tell("candles-told", "There are no trades in this time.");
    const { bars, symbol, exchange } = found;
    const { ground, good, bad, accent } = colours();
    const at = bars.at.map((ms) => moment(ms, every === "1d" ? 10 : 19));
    const broken = bars.missing.map((missing) => (missing ? 1 : null));
    const holes = broken.filter(Boolean).length;
    const told = `Bars of ${every}: ${plural(at.length, "bar")}, ${plural(holes, "has", "have")} gaps in ` +
      `${holes === 1 ? "it" : "them"}`;
    tell("candles-told", `${told}${holes ? ", shaded" : ""}.`);
    const price = bars.open.map((open, bar) =>
      (open === null ? ["-", "-", "-", "-"] : [open, bars.close[bar], bars.low[bar], bars.high[bar]].map(Number)));
    chart("candles", `${told}. Candles of ${symbol} on ${exchange} from ${at[0]} to ${at[at.length - 1]}, UTC.`, {
      tooltip: { trigger: "axis", axisPointer: { type: "cross" } },
      axisPointer: { link: [{ xAxisIndex: "all" }] },
      grid: [{ left: 72, right: 16, top: 36, height: "52%" }, { left: 72, right: 16, top: "70%", bottom: 64 }],
      xAxis: [{ type: "category", data: at, axisLabel: { show: false } },
        { type: "category", data: at, gridIndex: 1,
          axisLabel: { formatter: (value) => value.slice(every === "1d" ? 0 : 11) } }],
      yAxis: [{ scale: true, name: "price" }, { gridIndex: 1, name: "volume", splitNumber: 2 },
        { show: false, min: 0, max: 1 }],
      dataZoom: [{ type: "slider", xAxisIndex: [0, 1], bottom: 8, height: 24, start: firstShown(at.length) }],
      series: [
        { name: "Gap", type: "bar", yAxisIndex: 2, barWidth: "100%", data: broken, silent: true,
          tooltip: { show: false }, itemStyle: { color: bad, opacity: 0.22 } },
        { name: "Price", type: "candlestick", data: price, itemStyle: { color: ground, borderColor: good, color0: bad,
          borderColor0: bad } },
        { name: "Volume", type: "bar", xAxisIndex: 1, yAxisIndex: 1, data: bars.volume.map(Number),
          itemStyle: { color: accent } },
      ],
    });
    const names = ["open", "high", "low", "close", "volume", "vwap", "trades", "missing"];
    const complete = (value) => (value === null ? "not known" : value ? "yes" : "no");
    const columns = [["start"], ...names.map((name) => [name, 1]), ["complete"]];
    table("candles-table", `Bars of ${symbol} on ${exchange}`, columns, at.map((start, bar) =>
      [start, ...names.map((name) => bars[name][bar] ?? "–"), complete(bars.complete[bar])]));
  };

  const rows = () => {
    const { at, trades, quotes, seconds, every } = page.contents.rows;
    const { accent, second } = colours();
    const minutes = seconds / 60;
    const means = minutes === 1 ? "" : `; means over ${every}`;
    const told = at.length ? `By event time, of all symbols${means}.` : "There are no trades or quotes in this time.";
    tell("rows-told", told);
    if (!has("rows", at.length)) return;
    const line = (name, values, color, type) => ({ name, type: "line", symbol: "none", itemStyle: { color },
      data: at.map((ms, place) => [ms, values[place] / minutes]), lineStyle: { color, type, width: 2 } });
    const most = (values) => number(Math.round(Math.max(...values) / minutes));
    chart("rows", `Rows a minute from ${moment(at[0])} to ${moment(at[at.length - 1])}, UTC: at most ${most(trades)} ` +
      `trades and ${most(quotes)} quotes.`, {
      tooltip: { trigger: "axis", valueFormatter: (value) => number(Math.round(value * 10) / 10) },
      grid: { left: 72, right: 16, top: 36, bottom: 32 },
      xAxis: { type: "time", splitLine: { show: false } }, yAxis: { type: "value" },
      series: [line("Trades", trades, accent, "solid"), line("Quotes", quotes, second, "dashed")],
    });
    table("rows-table", `Rows in each ${every}`, [["start"], ["trades", 1], ["quotes", 1]],
      at.map((ms, place) => [moment(ms), number(trades[place]), number(quotes[place])]));
  };

  const gaps = () => {
    const { open, missing, shown } = page.contents.gaps;
    const { ink, bad, second } = colours();
    const sums = new Map();
    const name = (gap) => `${gap.symbol} ${gap.kind} ${gap.exchange}`;
    for (const gap of shown) sums.set(name(gap), (sums.get(name(gap)) || 0) + gap.missing);
    const lines = [...sums.keys()].sort((a, b) => sums.get(b) - sums.get(a)).slice(0, MOST_LINES).reverse();
    const left = open - shown.length;
    const counts = `${plural(open, "open gap")}, ${plural(missing, "number")} missing.`;
    tell("gaps-told", !open ? "No number is missing." : counts +
      (left ? ` The largest ${number(shown.length)} are shown.` : "") +
      (sums.size > MOST_LINES ? ` The chart has the ${MOST_LINES} symbols that lack most.` : ""));
    if (!has("gaps", open)) return;
    const drawn = shown.filter((gap) => lines.includes(name(gap)));
    node("gaps").style.height = `${80 + 30 * lines.length}px`;
    const bar = (params, api) => {
      const [left, middle] = api.coord([api.value(0), api.value(2)]);
      const width = Math.max(4, api.coord([api.value(1), api.value(2)])[0] - left);
      const height = api.size([0, 1])[1] * 0.6;
      return { type: "rect", shape: { x: left, y: middle - height / 2, width, height },
        style: { fill: drawn[params.dataIndex].severity === "SMALL" ? second : bad } };
    };
    chart("gaps", `Gaps on an axis of time, a line for each symbol and kind: ${counts}`, {
      legend: { show: false }, tooltip: { trigger: "item", formatter: ({ dataIndex }) => {
        const gap = drawn[dataIndex];
        return `${name(gap)}\n${number(gap.missing)} missing: ${gap.first} to ${gap.last}\n` +
          `${moment(gap.from)} to ${moment(gap.until)}`;
      } },
      grid: { left: 16, right: 24, top: 12, bottom: 8, containLabel: true },
      xAxis: { type: "time", scale: true, splitLine: { show: true } },
      yAxis: { type: "category", data: lines, axisLabel: { color: ink } },
      series: [{ name: "Gaps", type: "custom", renderItem: bar, encode: { x: [0, 1], y: 2 },
        data: drawn.map((gap) => [gap.from ?? gap.until, gap.until, lines.indexOf(name(gap)), gap.missing]) }],
    });
    table("gaps-table", "The open gaps, the largest first", [["symbol"], ["exchange"], ["kind"], ["first missing", 1],
      ["last missing", 1], ["missing", 1], ["severity"], ["after"], ["before"]], shown.map((gap) => [
      gap.symbol, gap.exchange, gap.kind, gap.first, gap.last, number(gap.missing), gap.severity, moment(gap.from),
      moment(gap.until)]));
  };

  const letters = () => {
    const found = page.contents.dead_letters;
    const { bad, ink } = colours();
    const sum = found.reduce((total, one) => total + one.letters, 0);
    tell("letters-told", found.length ? `${plural(sum, "dead letter")} in ${plural(found.length, "class", "classes")}.`
      : "Every message could be used.");
    if (!has("letters", found.length)) return;
    const drawn = found.slice(0, MOST_LINES).reverse();
    node("letters").style.height = `${80 + 30 * drawn.length}px`;
    const first = found.slice(0, 5).map((one) => `${one.error_class} ${one.letters}`).join(", ");
    chart("letters", `Dead letters by class, the most first: ${first}.`, {
      legend: { show: false }, tooltip: { trigger: "item" },
      grid: { left: 16, right: 48, top: 12, bottom: 8, containLabel: true },
      xAxis: { type: "value", minInterval: 1 },
      yAxis: { type: "category", data: drawn.map((one) => one.error_class), axisLabel: { color: ink } },
      series: [{ name: "Dead letters", type: "bar", data: drawn.map((one) => one.letters), itemStyle: { color: bad },
        label: { show: true, position: "right", color: ink } }],
    });
    table("letters-table", "Dead letters by class", [["class"], ["letters", 1], ["offsets", 1]],
      found.map((one) => [one.error_class, number(one.letters), number(one.offsets)]));
  };

  const sizes = () => {
    const { tables, size_classes: bounds } = page.contents;
    const { ink } = colours();
    const between = bounds.slice(1).map((bound, at) => `${size(bounds[at])} to ${size(bound)}`);
    const names = [`under ${size(bounds[0])}`, ...between, `${size(bounds[bounds.length - 1])} and more`];
    const files = tables.reduce((sum, one) => sum + one.files, 0);
    chart("sizes", `${plural(files, "data file")} by size, in each table.`, {
      tooltip: { trigger: "axis" }, grid: { left: 16, right: 24, top: 36, bottom: 8, containLabel: true },
      xAxis: { type: "value", minInterval: 1 },
      yAxis: { type: "category", data: names, inverse: true, axisLabel: { color: ink } },
      series: tables.map((one) => ({ name: one.table, type: "bar", stack: "files", data: one.sizes })),
    });
    table("sizes-table", "Files of each table by size", [["table"], ...names.map((name) => [name, 1])],
      tables.map((one) => [one.table, ...one.sizes.map(number)]));
  };

  const snapshots = () => {
    const { snapshots: found, tables } = page.contents;
    chart("snapshots", `Rows of each table after each of ${plural(found.length, "snapshot")}.`, {
      tooltip: { trigger: "item" },
      grid: { left: 16, right: 24, top: 40, bottom: 8, containLabel: true },
      xAxis: { type: "time", splitLine: { show: false } }, yAxis: { type: "value", name: "rows" },
      series: tables.map((one) => ({ name: one.table, type: "line", step: "end", symbolSize: 7,
        data: found.filter((made) => made.table === one.table).map((made) => [made.at, made.total_rows]) })),
    });
    const newestFirst = [...found].sort((a, b) => b.at - a.at);
    table("snapshots-table", "The snapshots, the newest first", [["committed"], ["table"], ["operation"],
      ["rows added", 1], ["files added", 1], ["rows then", 1], ["snapshot"]], newestFirst.map((one) => [moment(one.at),
      one.table, one.operation ?? "–", number(one.added_rows), number(one.added_files),
      number(one.total_rows), one.snapshot_id]));
  };

  const symbols = () => {
    const { of } = page.contents.candles;
    const before = node("symbol").selectedOptions[0]?.textContent;
    const names = of.map((one) => `${one.symbol} on ${one.exchange}`);
    node("symbol").replaceChildren(...names.map((name, at) => element("option", name, { value: at })));
    if (names.includes(before)) node("symbol").value = names.indexOf(before);
  };

  page.draw = () => {
    page.drawTables();
    symbols();
    [candles, rows, gaps, letters, sizes, snapshots].forEach((one) => one());
    instances.forEach((one) => one.resize());
  };

  const theme = (dark) => {
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    node("theme").setAttribute("aria-pressed", String(dark));
    page.draw();
  };
  node("theme").addEventListener("click", () => theme(document.documentElement.dataset.theme !== "dark"));
  node("symbol").addEventListener("change", () => { zooms.delete("candles"); candles(); });
  window.addEventListener("resize", () => instances.forEach((one) => one.resize()));
  theme(window.matchMedia("(prefers-color-scheme: dark)").matches);
})();
