/** A chart with its legend, what it says at the pointer, and the table behind it. */

import { useEffect, useId, useRef, useState, type ReactNode } from 'react';
import { useTheme } from '../theme';
import { plot, type Drawing, type Plot } from './plot';

export interface ChartProps {
  /** What it shows, for those who do not see it. */
  summary: string;
  drawing: Drawing;
  /** The bucket under the pointer. */
  tip: (bucket: number) => ReactNode;
  /** The same as rows. */
  table: { head: string[]; rows: string[][] };
  onZoom: (first: number, last: number) => void;
  onBack: () => void;
}

/** Colours are read when a chart is made: another theme needs another chart. */
export const Chart = (props: ChartProps) => <Themed key={useTheme()} {...props} />;

function Themed({ summary, drawing, tip, table, onZoom, onBack }: ChartProps) {
  const root = useRef<HTMLDivElement>(null);
  const chart = useRef<Plot>(null);
  const [at, setAt] = useState<{ bucket: number; left: number; width: number } | null>(null);
  const reactions = useRef({ onZoom, onBack });
  reactions.current = { onZoom, onBack };

  useEffect(() => {
    if (chart.current?.update(drawing)) return;
    chart.current?.remove();
    chart.current = plot(root.current!, drawing, {
      point: (bucket, left) =>
        setAt(bucket === null ? null : { bucket, left, width: root.current?.clientWidth ?? 0 }),
      zoom: (first, last) => reactions.current.onZoom(first, last),
      back: () => reactions.current.onBack(),
    });
  }, [drawing]);

  useEffect(() => {
    const element = root.current!;
    const observer = new ResizeObserver(() => chart.current?.resize(element.clientWidth, element.clientHeight));
    observer.observe(element);
    return () => {
      observer.disconnect();
      chart.current?.remove();
      chart.current = null;
    };
  }, []);

  const bucket = at && at.bucket < drawing.labels.length ? at.bucket : null;
  return (
    <figure className="chart">
      <div className="canvas" ref={root} role="img" aria-label={`${summary} The table below has the same numbers.`}>
        {bucket !== null && at && (
          <div className={at.left > at.width / 2 ? 'tip left' : 'tip'} style={{ left: at.left }} aria-hidden="true">
            {tip(bucket)}
          </div>
        )}
      </div>
      <Legend drawing={drawing} />
      <Table {...table} summary={summary} />
    </figure>
  );
}

function Legend({ drawing }: { drawing: Drawing }) {
  return (
    <ul className="legend">
      {drawing.series.map(({ label, color }) => (
        <li key={label}>
          <Swatch color={color} />
          <bdi>{label}</bdi>
        </li>
      ))}
      {drawing.open.some(Boolean) && (
        <li className="open-hint">
          <span className="swatch stripes" aria-hidden="true" />
          not over yet
        </li>
      )}
    </ul>
  );
}

export const Swatch = ({ color }: { color: string }) => (
  <span className="swatch" style={{ background: `var(--${color})` }} aria-hidden="true" />
);

function Table({ head, rows, summary }: ChartProps['table'] & { summary: string }) {
  const [isOpen, setOpen] = useState(false);
  const id = useId();
  return (
    <div className="behind">
      <button type="button" className="link" aria-expanded={isOpen} aria-controls={id} onClick={() => setOpen(!isOpen)}>
        {isOpen ? 'Hide the table' : 'Show as a table'}
      </button>
      <div id={id} className="scroll" hidden={!isOpen} role="region" aria-label={summary} tabIndex={0}>
        {isOpen && (
          <table>
            <thead>
              <tr>
                {head.map((name, i) => (
                  <th key={i} scope="col">
                    <bdi>{name}</bdi>
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {rows.map(([first, ...rest]) => (
                <tr key={first}>
                  <th scope="row">{first}</th>
                  {rest.map((cell, i) => (
                    <td key={i}>{cell}</td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        )}
      </div>
    </div>
  );
}
