/** The time to the first token over time: percentiles, each within its error bounds. */

import { useMemo } from 'react';
import type { Latency as Measured, Percentile } from '@client';
import { useUsage } from '../answers';
import { Chart, Swatch } from '../charts/chart';
import type { Drawing } from '../charts/plot';
import { useNow } from '../now';
import { brief, bucket as bucketName, count, label } from '../numbers';
import type { UsageQuery } from '../questions';
import { filtersOf, rangeOf, widthOf, type View } from '../view';
import { Panel } from './panel';
import { useZoom } from './stacked';

const LINES = [
  { name: 'p99', color: 'c5' },
  { name: 'p95', color: 'c3' },
  { name: 'p50', color: 'c1' },
] as const;

export function Latency({ view }: { view: View }) {
  const now = useNow(60_000);
  const query: UsageQuery = {
    ...rangeOf(view),
    time_zone: view.zone,
    bucket_width: widthOf(view, now),
    fill: 'zero',
    include: ['latency'],
    ...filtersOf(view),
  };
  const { data: answer, isError, isPlaceholderData } = useUsage(view.org, query);
  const measured = useMemo(() => answer?.data.map(({ results }) => results[0]?.latency) ?? [], [answer?.data]);
  const hasAny = measured.some((one) => one && one.measured_requests > 0);
  return (
    <Panel
      title="Time to first token"
      question={{ ask: 'usage', org: view.org, query: { ...query, limit: 1000 } }}
      isPending={!answer}
      isFailed={isError}
      isOld={isPlaceholderData}
      empty={answer && !hasAny ? 'No latency was measured in this range.' : null}
    >
      {answer && hasAny && <Lines view={view} answer={answer} measured={measured} />}
    </Panel>
  );
}

type Many = (Measured | undefined)[];

function Lines({ view, answer, measured }: { view: View; answer: NonNullable<ReturnType<typeof useUsage>['data']>; measured: Many }) {
  const { data, range } = answer;
  // By user or key there is the mean alone.
  const hasPercentiles = measured.some((one) => one?.p50);
  const drawing: Drawing = useMemo(
    () => ({
      kind: 'lines',
      labels: data.map(({ start_time }) => label(start_time, range.bucket_width, range.time_zone)),
      series: hasPercentiles
        ? LINES.map(({ name, color }) => ({ label: name, color, values: measured.map((one) => atLeastOne(one?.[name]?.estimate_ms)) }))
        : [{ label: 'mean', color: 'c1', values: measured.map((one) => atLeastOne(one?.mean_ms)) }],
      ...(hasPercentiles && {
        bounds: LINES.map(({ name }) => ({
          low: measured.map((one) => atLeastOne(one?.[name]?.at_least_ms)),
          high: measured.map((one) => one?.[name]?.at_most_ms ?? one?.[name]?.estimate_ms ?? null),
        })),
      }),
      open: data.map(() => false),
      tick: (value) => `${brief(value)} ms`,
    }),
    [data, measured, hasPercentiles, range.bucket_width, range.time_zone],
  );
  const nameOf = (place: number) => bucketName(data[place]!.start_time, data[place]!.end_time, range.bucket_width, range.time_zone);
  return (
    <Chart
      summary={`Milliseconds until the first token, in ${data.length} buckets from ${nameOf(0)} to ${nameOf(data.length - 1)}.`}
      drawing={drawing}
      {...useZoom(view, answer)}
      tip={(place) => {
        const one = measured[place];
        return (
          <>
            <strong>{nameOf(place)}</strong>
            <span className="hint">{count(one?.measured_requests ?? 0)} measured</span>
            {one && one.measured_requests > 0 && (
              <dl>
                {LINES.filter(({ name }) => one[name]).map(({ name, color }) => (
                  <div key={name}>
                    <dt>
                      <Swatch color={color} />
                      {name}
                    </dt>
                    <dd>{withBounds(one[name])}</dd>
                  </div>
                ))}
                <div className="sum">
                  <dt>mean</dt>
                  <dd>{meanOf(one)}</dd>
                </div>
              </dl>
            )}
          </>
        );
      }}
      table={{
        head: ['Time', 'p50', 'p95', 'p99', 'mean', 'measured'],
        rows: data.map((_, place) => {
          const one = measured[place];
          return [nameOf(place), withBounds(one?.p50), withBounds(one?.p95), withBounds(one?.p99), meanOf(one), count(one?.measured_requests ?? 0)];
        }),
      }}
    />
  );
}

/** A scale of powers of ten has no place for 0. */
const atLeastOne = (value: number | null | undefined) => (value == null ? null : Math.max(1, value));
const meanOf = (one: Measured | undefined) => (one?.mean_ms == null ? '–' : `${count(one.mean_ms)} ms`);

function withBounds(one: Percentile | undefined): string {
  if (!one) return '–';
  const most = one.at_most_ms === null ? 'more' : count(one.at_most_ms);
  return `${count(one.estimate_ms)} ms (${count(one.at_least_ms)} to ${most})`;
}
