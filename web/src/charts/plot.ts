/** uPlot, as this page uses it: buckets side by side, whatever their length. The only file that names it. */

import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';

export interface Series {
  label: string;
  /** The name of a colour in style.css. */
  color: string;
  /** One for each bucket; null: nothing was measured. */
  values: (number | null)[];
}

/** A line's error bounds. */
export interface Bounds {
  low: (number | null)[];
  high: (number | null)[];
}

export interface Drawing {
  kind: 'stack' | 'lines';
  /** Below the chart, for each bucket. */
  labels: string[];
  series: Series[];
  /** Around the line of the same place. */
  bounds?: Bounds[];
  /** Buckets that have not ended. */
  open: boolean[];
  tick: (value: number) => string;
}

export interface Reactions {
  point: (bucket: number | null, left: number) => void;
  zoom: (first: number, last: number) => void;
  back: () => void;
}

export interface Plot {
  update: (drawing: Drawing) => boolean;
  resize: (width: number, height: number) => void;
  remove: () => void;
}

/** Bars of more buckets than that would be thinner than the space between them. */
const MOST_BARS = 160;
const STEPS = [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 30, 48, 60, 72, 96, 120, 192, 240, 288, 384, 480, 576, 960, 1440, 2000, 4000];

const color = (name: string) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const faint = (name: string, percent: number) => `color-mix(in srgb, ${color(name)} ${percent}%, transparent)`;

/** What decides about the chart's parts; another one needs another chart. */
const shapeOf = ({ kind, labels, series, bounds }: Drawing) =>
  JSON.stringify([kind, labels.length > MOST_BARS, series.map(({ label, color }) => [label, color]), !!bounds]);

/** Layers from the whole down to the first group: each is drawn over the one before. */
function stacked({ series }: Drawing): (number | null)[][] {
  const sums = series[0]?.values.map(() => 0) ?? [];
  return series.map(({ values }) => values.map((value, i) => (sums[i] = (sums[i] ?? 0) + (value ?? 0)))).reverse();
}

function dataOf(drawing: Drawing): uPlot.AlignedData {
  const places = drawing.labels.map((_, place) => place);
  if (drawing.kind === 'stack') return [places, ...stacked(drawing)];
  const lines = drawing.series.flatMap(({ values }, i) => {
    const bounds = drawing.bounds?.[i];
    return bounds ? [bounds.high, bounds.low, values] : [values];
  });
  return [places, ...lines];
}

function seriesOf({ kind, labels, series, bounds }: Drawing): uPlot.Series[] {
  const points = { show: false };
  if (kind === 'stack') {
    const { bars, stepped } = uPlot.paths;
    const paths = labels.length > MOST_BARS ? stepped!({ align: 1 }) : bars!({ size: [0.78, 56], radius: 0.06 });
    return [...series].reverse().map((one) => ({ paths, points, width: 0, fill: color(one.color) }));
  }
  // A line of its own between two buckets without measurements would not be seen.
  const single = { show: labels.length <= MOST_BARS, size: 5 };
  return series.flatMap((one, i) => {
    const line = { stroke: color(one.color), width: 2, points: { ...single, fill: color(one.color) } };
    return bounds?.[i] ? [{ points, width: 0 }, { points, width: 0 }, line] : [line];
  });
}

/** Stripes over what may still grow. */
function stripe(plot: uPlot, open: boolean[]) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.beginPath();
  open.forEach((isOpen, place) => {
    if (!isOpen) return;
    const [from, to] = [place - 0.5, place + 0.5].map((at) => plot.valToPos(at, 'x', true)) as [number, number];
    ctx.rect(from, bbox.top, to - from, bbox.height);
  });
  ctx.clip();
  ctx.strokeStyle = faint('surface', 55);
  ctx.lineWidth = 3 * devicePixelRatio;
  ctx.beginPath();
  const step = 8 * devicePixelRatio;
  for (let x = bbox.left - bbox.height; x < bbox.left + bbox.width; x += step) {
    ctx.moveTo(x, bbox.top + bbox.height);
    ctx.lineTo(x + bbox.height, bbox.top);
  }
  ctx.stroke();
  ctx.restore();
}

/** Latencies reach from a millisecond to a minute: whole powers of ten around them. */
const decades = (_: uPlot, min: number, max: number): [number, number] => [
  10 ** Math.floor(Math.log10(Math.max(1, min || 1))),
  10 ** Math.ceil(Math.log10(Math.max(10, max || 10))),
];

export function plot(root: HTMLElement, first: Drawing, reactions: Reactions): Plot {
  let drawing = first;
  const axis = { stroke: color('muted'), font: '12px Inter, system-ui, sans-serif', ticks: { show: false } };
  const options: uPlot.Options = {
    width: root.clientWidth,
    height: root.clientHeight,
    padding: [12, 8, 0, 0],
    legend: { show: false },
    cursor: { y: false, points: { show: false }, drag: { x: true, y: false, setScale: false } },
    scales: {
      x: { time: false, range: (_, min, max) => [(min ?? 0) - 0.5, (max ?? 0) + 0.5] },
      y: first.kind === 'lines' ? { distr: 3, range: decades } : { range: (_, __, max) => [0, max > 0 ? max * 1.06 : 1] },
    },
    axes: [
      {
        ...axis,
        incrs: STEPS,
        space: 70,
        size: 28,
        grid: { show: false },
        values: (_, places) => places.map((place) => drawing.labels[place] ?? ''),
      },
      {
        ...axis,
        size: 62,
        grid: { stroke: faint('line', 100), width: 1 },
        values: (_, values) => values.map((value) => (value === null ? '' : drawing.tick(value))),
      },
    ],
    series: [{}, ...seriesOf(first)],
    bands: first.bounds?.map((_, i) => ({
      series: [3 * i + 1, 3 * i + 2],
      fill: faint(first.series[i]!.color, 16),
    })),
    hooks: {
      draw: [(u) => drawing.kind === 'stack' && stripe(u, drawing.open)],
      setCursor: [
        (u) => {
          const place = u.cursor.idx ?? null;
          const inside = (u.cursor.left ?? -1) >= 0;
          reactions.point(inside ? place : null, u.valToPos(place ?? 0, 'x') + u.bbox.left / devicePixelRatio);
        },
      ],
      setSelect: [
        (u) => {
          const [from, to] = [u.select.left, u.select.left + u.select.width].map((at) => Math.round(u.posToVal(at, 'x')));
          u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
          const last = drawing.labels.length - 1;
          if (to! > from!) reactions.zoom(Math.max(0, from!), Math.min(last, to!));
        },
      ],
    },
  };
  const u = new uPlot(options, dataOf(first), root);
  u.over.addEventListener('dblclick', reactions.back);
  return {
    update(next) {
      if (shapeOf(next) !== shapeOf(drawing)) return false;
      drawing = next;
      u.setData(dataOf(next));
      return true;
    },
    resize: (width, height) => u.setSize({ width, height }),
    remove: () => u.destroy(),
  };
}
