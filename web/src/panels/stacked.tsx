/** A chart of layers: used by the main chart and by that of errors. */

import { useMemo } from 'react';
import type { BucketWidth, UsageAnswer } from '@client';
import { Chart, Swatch } from '../charts/chart';
import type { Drawing } from '../charts/plot';
import { amount as unitsOf, bucket as bucketName, count, exact, label, money, tick } from '../numbers';
import { text } from '../money';
import { show, type Measure, type View } from '../view';
import type { Layer } from './stack';

const OPEN = { open: 'not over yet', closed: 'late events may still come', final: 'final' } as const;

export interface StackedProps {
  view: View;
  answer: UsageAnswer;
  layers: Layer[];
  measure: Measure;
  what: string;
}

/** Where the range of a chart's buckets leads to. */
export function useZoom(view: View, answer: UsageAnswer) {
  return {
    onZoom: (first: number, last: number) => {
      const [from, to] = [answer.data[first]?.start_time, answer.data[last]?.end_time];
      if (from && to) show({ ...view, range: 'custom', from, to, width: null });
    },
    onBack: () => history.back(),
  };
}

export function Stacked({ view, answer, layers, measure, what }: StackedProps) {
  const { data } = answer;
  const width: BucketWidth = answer.range.bucket_width;
  const zone = answer.range.time_zone;
  const drawing: Drawing = useMemo(
    () => ({
      kind: 'stack',
      labels: data.map(({ start_time }) => label(start_time, width, zone)),
      series: layers.map(({ label, color, values }) => ({ label, color, values })),
      open: data.map(({ state }) => state === 'open'),
      tick: (value) => tick(value, measure),
    }),
    [data, layers, measure, width, zone],
  );
  const shown = (value: bigint) => (measure === 'cost' ? money(text(value)) : count(Number(value)));
  const total = (place: number) =>
    shown(layers.reduce((sum, { measures }) => sum + (measures[place] ? unitsOf(measures[place], measure) : 0n), 0n));
  const nameOf = (place: number) => bucketName(data[place]!.start_time, data[place]!.end_time, width, zone);
  return (
    <Chart
      summary={`${what}, in ${data.length} buckets from ${nameOf(0)} to ${nameOf(data.length - 1)}.`}
      drawing={drawing}
      {...useZoom(view, answer)}
      tip={(place) => (
        <>
          <strong>{nameOf(place)}</strong>
          <span className="hint">{OPEN[data[place]!.state]}</span>
          <dl>
            {layers.map(({ label, color, measures }) => {
              const one = measures[place];
              return (
                <div key={label}>
                  <dt>
                    <Swatch color={color} />
                    <bdi>{label}</bdi>
                  </dt>
                  <dd>{one ? exact(one, measure) : '0'}</dd>
                </div>
              );
            })}
            {layers.length > 1 && (
              <div className="sum">
                <dt>together</dt>
                <dd>{total(place)}</dd>
              </div>
            )}
          </dl>
        </>
      )}
      table={{
        head: ['Time', ...layers.map(({ label }) => label), 'together', 'state'],
        rows: data.map(({ state }, place) => [
          nameOf(place),
          ...layers.map(({ measures }) => (measures[place] ? exact(measures[place], measure) : '0')),
          total(place),
          state,
        ]),
      }}
    />
  );
}
