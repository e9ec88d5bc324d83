// Charts of the figures in data-chart; tables beside them hold the same numbers.
"use strict";
(() => {
  const drawn = new Set();
  const DAY_S = 86400;
  const isoDay = (seconds) => new Date(seconds * 1000).toISOString().slice(0, 10);
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const short = (value) => (value == null ? "–" : Math.abs(value) >= 1000 ? value.toFixed(0) : String(+value.toFixed(3)));

  function columns(chart) {
    const x = chart.kind === "day" ? chart.x.map((day) => Date.parse(day + "T00:00:00Z") / 1000) : chart.x;
    const rows = chart.series.map((one) => one.values.map((value) => (value == null ? null : value)));
    if (chart.kind === "stack") {
      for (let row = 1; row < rows.length; row++) rows[row] = rows[row].map((value, at) => value + rows[row - 1][at]);
    }
    return [x, ...rows];
  }

  function intervals(chart) {
    // Vertical bars from the low to the high bound of a series.
    return (plot) => {
      chart.series.forEach((one, index) => {
        if (!one.low || !plot.series[index + 1].show) return;
        const context = plot.ctx;
        context.save();
        context.strokeStyle = css("--s" + (index % 8));
        context.lineWidth = 2 * devicePixelRatio;
        context.globalAlpha = 0.55;
        chart.x.forEach((at, place) => {
          if (one.low[place] == null || one.high[place] == null) return;
          const across = plot.valToPos(at, "x", true);
          context.beginPath();
          context.moveTo(across, plot.valToPos(one.low[place], "y", true));
          context.lineTo(across, plot.valToPos(one.high[place], "y", true));
          context.stroke();
        });
        context.restore();
      });
    };
  }

  const DAYS = {
    incrs: [1, 2, 7, 14, 28, 91, 182, 364, 1092].map((days) => days * DAY_S),
    space: 90,
    values: (plot, splits) => splits.map(isoDay),
  };
  const steps = (names) => ({
    values: (plot, splits) => splits.map((at) => (Number.isInteger(at) ? (names ? (names[at - 1] || "").replace(/^.*-v/, "v") : String(at)) : "")),
  });

  function options(chart, width) {
    const axis = { stroke: css("--soft"), grid: { stroke: css("--grid"), width: 1 }, ticks: { stroke: css("--grid") } };
    const names = chart.names;
    const whole = chart.kind !== "day";
    const bounds = chart.series.flatMap((one) => [...(one.low || []), ...(one.high || [])]).filter((value) => value != null);
    const stacked = chart.kind === "stack" || chart.kind === "day";
    return {
      width,
      height: 230,
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      scales: {
        x: {
          time: !whole,
          range: (plot, low, high) => {
            // Of a single day uPlot itself would make years; and a day's bar is a day wide.
            const [first] = plot.data[0], room = whole ? 1 : DAY_S / 2;
            if (plot.data[0].length === 1) return [first - room, first + room];
            const edge = Math.max((high - low) * 0.03, whole ? 0 : room);
            return [low - edge, high + edge];
          },
        },
        y: {
          range: (_, low, high) => {
            const least = Math.min(low ?? 0, ...bounds), most = Math.max(high ?? 1, ...bounds);
            const room = (most - least || 1) * 0.08;
            return stacked ? [0, (most || 1) * 1.05] : [least - room, most + room];
          },
        },
      },
      legend: { live: true },
      cursor: { points: { size: 7 } },
      series: [
        { label: chart.kind === "step" ? "step" : chart.kind === "day" ? "day" : "version", value: (plot, raw) => (raw == null ? "–" : chart.kind === "day" ? isoDay(raw) : names ? names[Math.round(raw) - 1] : String(raw)) },
        ...chart.series.map((one, index) => ({
          label: one.label,
          stroke: css("--s" + (index % 8)),
          width: index === 0 ? 2.5 : 1.5,
          dash: index > 0 && chart.kind === "version" ? [[6, 3], [2, 3], [8, 3, 2, 3]][index % 3] : undefined,
          points: { show: chart.x.length <= 60, size: 6, fill: css("--s" + (index % 8)) },
          spanGaps: true,
          paths: stacked && uPlot.paths.bars ? uPlot.paths.bars({ size: [0.7, 60] }) : undefined,
          fill: stacked ? css("--s" + (index % 8)) : undefined,
          value: (plot, raw, series, at) => short(at == null ? null : one.values[at]),
        })),
      ],
      axes: [{ ...axis, ...(whole ? steps(names) : DAYS) }, axis],
      hooks: { draw: [intervals(chart)] },
    };
  }

  function draw(figure) {
    if (typeof uPlot === "undefined") return;
    const chart = JSON.parse(figure.dataset.chart);
    const place = figure.querySelector(".plot");
    place.replaceChildren();
    if (!chart.x.length) return;
    let data = columns(chart);
    const settings = options(chart, place.clientWidth || 320);
    if (chart.kind === "stack") {  // the largest sum is drawn first, so that smaller ones lie in front of it
      data = [data[0], ...data.slice(1).reverse()];
      settings.series = [settings.series[0], ...settings.series.slice(1).reverse()];
    }
    new uPlot(settings, data, place);
    drawn.add(figure);
  }

  const drawAll = (root) => root.querySelectorAll("figure[data-chart]").forEach(draw);
  const again = () => drawn.forEach((figure) => (figure.isConnected ? draw(figure) : drawn.delete(figure)));
  document.addEventListener("DOMContentLoaded", () => drawAll(document));
  document.addEventListener("htmx:afterSettle", (event) => {
    const root = event.detail.elt;
    if (root && root.querySelectorAll) drawAll(root);
  });
  let waiting = 0;
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(again, 150); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
})();
